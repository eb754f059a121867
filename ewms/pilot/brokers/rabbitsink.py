"""Publishing to one RabbitMQ queue: mandatory, confirmed, and again if need be."""

from typing import Final

import structlog
import trio

from ewms.pilot.brokers.amqpwire import ChannelRefused, Nacked, Returned, WireChannel
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, PublishRefused, QueueUnavailable
from ewms.pilot.brokers.link import CLOSE_TIMEOUT, FIRST_WAIT, LONGEST_WAIT, WireLost
from ewms.pilot.brokers.rabbitlink import ACCESS_REFUSED, PRECONDITION_FAILED, RabbitLink, open_queue_channel
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

_CONFIRM_TIMEOUT: Final = 60.0
# A nacked message may be taken a little later (a quorum without its majority), or never (a full queue).
_NACKS: Final = 5


class RabbitSink:
    """See `ewms.pilot.brokers.base.Sink`."""

    def __init__(self, link: RabbitLink, queue: str) -> None:
        self._link = link
        self._queue = queue
        self._channel: WireChannel | None = None
        self._opening = trio.Lock()
        self._in_flight: set[str] = set()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def open(self) -> None:
        """Make sure that the queue exists.

        Raises:
            BrokerRefused: it does not, or we may not use it.
            BrokerLost: the broker did not say so for as long as anything may fail.
        """
        deadline = trio.current_time() + self._link.give_up_after
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                self._channel = await open_queue_channel(self._link, self._queue, publisher_confirms=True)
            except WireLost as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(f"queue {self._queue!r} cannot be opened: {error}") from error
                log.warning("cannot open the queue yet, trying again", queue=self._queue, error=str(error))
            else:
                return
            await trio.sleep(wait)

    async def close(self) -> None:
        """Close the channel; what is confirmed is safe."""
        if self._channel is not None:
            await self._channel.close()

    async def publish(self, body: bytes, *, message_id: str) -> None:
        """Publish, again if need be, until the broker confirmed it: it may then be in the queue more than once."""
        deadline = trio.current_time() + self._link.give_up_after
        attempt = _Attempt()
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                await self._try(body, message_id, alone=attempt.alone)
            except (Returned, Nacked, ChannelRefused, WireLost) as error:
                attempt.failed(error, self._queue)
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(f"the broker took no message for queue {self._queue!r}: {error}") from error
                log.warning("message not confirmed, publishing again", queue=self._queue, error=str(error))
            else:
                return
            await trio.sleep(wait)

    async def _try(self, body: bytes, message_id: str, *, alone: bool) -> None:
        # The broker returns messages by id only, so equal ids must not share a channel.
        if alone or message_id in self._in_flight:
            channel = await (await self._link.wire()).open_channel(publisher_confirms=True)
            try:
                await channel.publish(self._queue, body, message_id=message_id, within=_CONFIRM_TIMEOUT)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await channel.close()
            return
        self._in_flight.add(message_id)
        try:
            channel = await self._shared_channel()
            await self._publish_shared(channel, body, message_id)
        finally:
            self._in_flight.discard(message_id)

    async def _publish_shared(self, channel: WireChannel, body: bytes, message_id: str) -> None:
        try:
            await channel.publish(self._queue, body, message_id=message_id, within=_CONFIRM_TIMEOUT)
        except (ChannelRefused, WireLost):
            if self._channel is channel:
                self._channel = None
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await channel.close()
            raise

    async def _shared_channel(self) -> WireChannel:
        async with self._opening:
            if self._channel is None or self._channel.closed.is_set():
                self._channel = await (await self._link.wire()).open_channel(publisher_confirms=True)
            return self._channel


class _Attempt:
    """What failed attempts to publish one message say about the next one."""

    def __init__(self) -> None:
        self.alone = False
        """The next attempt needs a channel of its own: some message on the shared one was refused."""
        self._nacks = 0

    def failed(self, error: Exception, queue: str) -> None:
        """Learn from an error.

        Raises:
            PublishRefused, BrokerRefused: there need not be a next attempt.
        """
        if isinstance(error, Returned):
            raise QueueUnavailable(f"there is no queue {queue!r}: {error}") from error
        if isinstance(error, ChannelRefused):
            if error.code == ACCESS_REFUSED:
                raise BrokerRefused(f"queue {queue!r} may not be written to: {error}") from error
            if self.alone or error.code != PRECONDITION_FAILED:
                raise PublishRefused(f"queue {queue!r} does not take this message: {error}") from error
            self.alone = True
        if isinstance(error, Nacked):
            self._nacks += 1
            if self._nacks >= _NACKS:
                raise QueueUnavailable(f"queue {queue!r} does not take messages (full?): {error}") from error
