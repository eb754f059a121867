"""Publishing to one topic on Pulsar: confirmed by the broker, and again if need be."""

from typing import Final

import structlog
import trio

from ewms.pilot.brokers.base import BrokerLost, PublishRefused
from ewms.pilot.brokers.link import FIRST_WAIT, LONGEST_WAIT, Link, WireLost
from ewms.pilot.brokers.pulsarwire import NotTaken, ProducerWire
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

MESSAGE_ID: Final = "ewms-message-id"
"""Property: the message's id."""


class PulsarSink:
    """See `ewms.pilot.brokers.base.Sink`."""

    def __init__(self, link: Link[ProducerWire], queue: str) -> None:
        self._link = link
        self._queue = queue

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def publish(self, body: bytes, *, message_id: str) -> None:
        """Publish, again if need be, until the broker confirmed it: it may then be in the queue more than once."""
        deadline = trio.current_time() + self._link.give_up_after
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                wire = await self._link.wire()
                await wire.send(body, {MESSAGE_ID: message_id})
            except NotTaken as error:
                raise PublishRefused(f"queue {self._queue!r} does not take this message: {error}") from error
            except WireLost as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(f"the broker took no message for queue {self._queue!r}: {error}") from error
                log.warning("message not confirmed, publishing again", queue=self._queue, error=str(error))
            else:
                return
            await trio.sleep(wait)
