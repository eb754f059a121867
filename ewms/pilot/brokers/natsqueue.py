"""What a queue is on a NATS server: a stream with one subject, and one durable pull consumer that all pilots share.

The names are those of `oms-mqclient` 2.x, which is the client of the people whose events these are: stream
`QUEUE-stream`, subject `QUEUE-subject`, consumer `psub`. Its users' programs make the stream too, and fail if they
find one with other settings: so ours are its own. They leave acknowledged messages in the stream; a queue whose
messages shall go must be made beforehand, by its owner.
"""

from typing import Final

import attrs
import structlog

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import Link
from ewms.pilot.brokers.natswire import Consumer, NatsWire, NobodyThere, Refused

log = structlog.stdlib.get_logger(__name__)

NatsLink = Link[NatsWire]

CONSUMER: Final = "psub"
ACK_WAIT: Final = 30.0
"""The server's default (s); readers that send no signs of life share the consumer."""
# The server's default is 512 requests that wait, of all pilots together.
_MAX_WAITING: Final = 50_000
_NOT_IN_A_NAME: Final = frozenset(" \t\r\n.*>/\\")


@attrs.frozen
class NatsQueue:
    """A queue's names on the server."""

    queue: str

    def __attrs_post_init__(self) -> None:
        if not self.queue or _NOT_IN_A_NAME & set(self.queue):
            raise BrokerRefused(f"queue {self.queue!r} cannot be on NATS: no spaces, dots, stars and slashes there")

    @property
    def stream(self) -> str:
        """Where its messages are."""
        return f"{self.queue}-stream"

    @property
    def subject(self) -> str:
        """What they are published to."""
        return f"{self.queue}-subject"

    @property
    def pull_subject(self) -> str:
        """Where messages are asked for."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{CONSUMER}"

    async def ensure_stream(self, wire: NatsWire) -> None:
        """Make the stream if it does not exist.

        Raises:
            BrokerRefused: it cannot be made.
            NobodyThere, WireLost: try again.
        """
        try:
            if not await wire.stream_exists(self.stream):
                await wire.create_stream(self.stream, self.subject)
        except Refused as error:
            raise self._refused(error) from error

    async def ensure_consumer(self, wire: NatsWire) -> Consumer:
        """Find the consumer, or make it; the stream too.

        Raises:
            BrokerRefused: it cannot be made, or is of another kind.
            NobodyThere, WireLost: try again.
        """
        await self.ensure_stream(wire)
        try:
            consumer = await wire.consumer(self.stream, CONSUMER) or await wire.create_consumer(
                self.stream, self.subject, CONSUMER, ack_wait=ACK_WAIT, max_waiting=_MAX_WAITING
            )
        except Refused as error:
            raise self._refused(error) from error
        if consumer.is_push:
            raise BrokerRefused(f"queue {self.queue!r} cannot be used: its consumer {CONSUMER!r} is no pull consumer")
        if consumer.max_ack_pending > 0:
            log.info(
                "all pilots together get so many events at a time", queue=self.queue, limit=consumer.max_ack_pending
            )
        return consumer

    def _refused(self, error: Refused) -> Exception:
        if error.code >= 500:
            return NobodyThere(str(error))
        return BrokerRefused(f"queue {self.queue!r} cannot be used: {error}")
