"""What a queue is on a NATS server: a stream with one subject, and one durable pull consumer that all pilots share.

Users' programs, which speak through `oms-mqclient` 2.x, make the stream too, and fail if they find one with other
settings: so ours are its own. It leaves acknowledged messages in the stream; a queue whose messages shall go must be
made beforehand, by its owner.
"""

from typing import Final

import structlog

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import Link
from ewms.pilot.brokers.natsaddress import CONSUMER, QueueNames
from ewms.pilot.brokers.natswire import Consumer, NatsWire, NobodyThere, Refused

log = structlog.stdlib.get_logger(__name__)

NatsLink = Link[NatsWire]

ACK_WAIT: Final = 30.0
"""The server's default (s); readers that send no signs of life share the consumer."""
# The server's default is 512 requests that wait, of all pilots together.
_MAX_WAITING: Final = 50_000


async def ensure_stream(wire: NatsWire, names: QueueNames) -> None:
    """Make the stream if it does not exist.

    Raises:
        BrokerRefused: it cannot be made.
        NobodyThere, WireLost: try again.
    """
    try:
        if not await wire.stream_exists(names.stream):
            await wire.create_stream(names.stream, names.subject)
    except Refused as error:
        raise _refused(names, error) from error


async def ensure_consumer(wire: NatsWire, names: QueueNames) -> Consumer:
    """Find the consumer, or make it; the stream too.

    Raises:
        BrokerRefused: it cannot be made, or is of another kind.
        NobodyThere, WireLost: try again.
    """
    await ensure_stream(wire, names)
    try:
        consumer = await wire.consumer(names.stream, CONSUMER) or await wire.create_consumer(
            names.stream, names.subject, CONSUMER, ack_wait=ACK_WAIT, max_waiting=_MAX_WAITING
        )
    except Refused as error:
        raise _refused(names, error) from error
    if consumer.is_push:
        raise BrokerRefused(f"queue {names.queue!r} cannot be used: its consumer {CONSUMER!r} is no pull consumer")
    if consumer.max_ack_pending > 0:
        log.info("all pilots together get so many events at a time", queue=names.queue, limit=consumer.max_ack_pending)
    return consumer


def _refused(names: QueueNames, error: Refused) -> Exception:
    if error.code >= 500:
        return NobodyThere(str(error))
    return BrokerRefused(f"queue {names.queue!r} cannot be used: {error}")
