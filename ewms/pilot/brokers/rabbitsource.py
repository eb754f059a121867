"""Consuming from one RabbitMQ queue: a consumer that is started again whenever its channel is gone."""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog
import trio

from ewms.pilot.brokers.amqpwire import ChannelRefused, Incoming, WireChannel
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery
from ewms.pilot.brokers.keptsource import KeptSource
from ewms.pilot.brokers.link import CLOSE_TIMEOUT, FIRST_WAIT, LONGEST_WAIT, WireLost
from ewms.pilot.brokers.rabbitlink import ACCESS_REFUSED, NOT_FOUND, RabbitLink, open_queue_channel
from ewms.pilot.brokers.rabbitwork import InWork
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

_DELIVERY_COUNT: Final = "x-delivery-count"
_NOT_FOR_US: Final = frozenset({ACCESS_REFUSED, NOT_FOUND})


class Tag(NamedTuple):
    """What a verdict needs to know: delivery tags are the channel's, and start anew on the next one."""

    channel: WireChannel
    number: int
    came_at: float


class RabbitSource(KeptSource):
    """See `ewms.pilot.brokers.base.Source`."""

    def __init__(self, link: RabbitLink, queue: str, prefetch: int) -> None:
        super().__init__()
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._channel: WireChannel | None = None
        self._consumer_tag = ""
        self._good_at: float | None = None
        self._in_work = InWork()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def _consume_for_ever(self) -> None:
        began = trio.current_time()
        delays = backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stopped:
            try:
                await self._consume()
                delays = backoff(FIRST_WAIT, LONGEST_WAIT)
            except BrokerRefused as error:
                # After a restart a broker may not know a queue for a while.
                if self._good_at is None or trio.current_time() - self._good_at > self._link.give_up_after:
                    raise
                log.warning("cannot consume any more, trying again", queue=self._queue, error=str(error))
            except (WireLost, ChannelRefused) as error:
                if trio.current_time() - (self._good_at or began) > self._link.give_up_after:
                    raise BrokerLost(f"queue {self._queue!r} cannot be consumed: {error}") from error
                log.warning("cannot consume yet, trying again", queue=self._queue, error=str(error))
            await trio.sleep(next(delays))

    async def _consume(self) -> None:
        channel = await open_queue_channel(self._link, self._queue, publisher_confirms=False)
        self._channel = channel
        try:
            while not channel.closed.is_set() and not self._stopped:
                await self._listen(channel)
            await channel.closed.wait()
        except (WireLost, ChannelRefused) as error:
            # A consumer that begins late would push on a channel that nobody knows any more.
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await channel.close()
            if isinstance(error, ChannelRefused) and error.code in _NOT_FOR_US:
                raise BrokerRefused(f"queue {self._queue!r} cannot be used: {error}") from error
            raise
        finally:
            if channel.closed.is_set():
                self._drop_pushed()
                self._in_work.forget()

    async def _listen(self, channel: WireChannel) -> None:
        """Consume until the consumer ends."""

        def on_message(message: Incoming) -> None:
            delivery = self._delivery(message, channel)
            # The broker may take it back from here on, whether anybody here has received it or not.
            self._in_work.took(delivery.tag, delivery.tag.came_at)
            self._pushed.send_nowait(delivery)

        self._consumer_tag = await channel.consume(self._queue, self._prefetch, on_message)
        if self._stopped:  # in the meantime
            await self.stop()
        self._listens(yes=True)
        try:
            await channel.consumer_ended.wait()
        finally:
            self._consumer_tag = ""
            self._listens(yes=False)
            self._good_at = trio.current_time()
        log.warning("consumer lost, starting it again", queue=self._queue, reason=channel.reason)
        self._in_work.consumer_ended(trio.current_time())
        await trio.sleep(FIRST_WAIT)

    def _delivery(self, message: Incoming, channel: WireChannel) -> Delivery:
        count = message.headers.get(_DELIVERY_COUNT)
        return Delivery(
            body=message.body,
            queue=self._queue,
            message_id=message.message_id,
            headers=message.headers,
            returned=count if isinstance(count, int) else int(message.redelivered),
            tag=Tag(channel, message.delivery_tag, trio.current_time()),
        )

    async def receive(self) -> Delivery:
        """Wait for the next delivery of a living channel."""
        while True:
            delivery = await self._next_pushed()
            if not delivery.tag.channel.closed.is_set():
                return delivery

    def holds(self, delivery: Delivery) -> bool:
        """Whether its channel lives, and the broker may not have taken back just this one."""
        tag = delivery.tag
        return tag in self._in_work and not self._in_work.is_in_doubt(tag) and not tag.channel.closed.is_set()

    async def ack(self, delivery: Delivery) -> bool:
        """Sent means done: AMQP confirms no acks, and an ack that gets lost means a redelivery."""
        return await self._verdict(delivery.tag, lambda tag: tag.channel.ack(tag.number))

    async def reject(self, delivery: Delivery) -> bool:
        """Requeue as a failure."""
        return await self._verdict(delivery.tag, lambda tag: tag.channel.reject(tag.number))

    async def hand_back(self, delivery: Delivery) -> bool:
        """Requeue as not tried (RabbitMQ before 4.3 counts it all the same)."""
        return await self._verdict(delivery.tag, lambda tag: tag.channel.nack(tag.number))

    async def _verdict(self, tag: Tag | None, give: Callable[[Tag], Awaitable[None]]) -> bool:
        if tag is None or tag not in self._in_work:
            await trio.lowlevel.checkpoint()
            return False
        # A second verdict on one tag would close the channel, and every other delivery would be lost with it.
        was_taken_back = self._in_work.settle(tag, trio.current_time()) or tag.channel.closed.is_set()
        try:
            await give(tag)
        except (WireLost, ChannelRefused) as error:
            log.debug("nobody knows whether a verdict arrived", queue=self._queue, reason=str(error))
        return not was_taken_back

    async def stop(self) -> None:
        """Stop consuming, and hand back what was pushed but not given out; the channel stays for verdicts."""
        self._stopped = True
        channel, tag = self._channel, self._consumer_tag
        if channel is None:
            return
        self._consumer_tag = ""
        try:
            if tag:
                await channel.stop_consuming(tag)
            await self._hand_back_the_rest(channel)
        except (WireLost, ChannelRefused) as error:
            log.debug("the broker takes the rest back by itself", queue=self._queue, reason=str(error))

    async def close(self) -> None:
        """Stop consuming and hand back what was pushed but not given out; closing the channel frees all the rest.

        Cancelled, it hangs up on the broker, which frees everything.
        """
        channel = self._channel
        if channel is None:
            return
        self._in_work.forget()
        try:
            await self.stop()
            await channel.close()
        except trio.Cancelled:
            channel.abort()
            raise

    async def _hand_back_the_rest(self, channel: WireChannel) -> None:
        while True:
            try:
                delivery = self._waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            if delivery.tag.channel is channel:
                await channel.nack(delivery.tag.number)
