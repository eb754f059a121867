"""RabbitMQ: quorum queues, push consumers with a constant prefetch, confirmed mandatory publishing, reconnecting.

One task keeps the connection, one per source keeps its consumer; a sink opens its channel when it publishes. Whatever
breaks is made anew with capped, jittered backoff; what cannot get better (credentials, a queue that does not exist) is
told at once. Messages that were pushed but not given out when a channel died are forgotten: the broker redelivers them.
"""

import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import structlog
import trio

from ewms.pilot.brokers._asyncio import Border, open_border
from ewms.pilot.brokers.amqpaddress import AmqpAddress, parse_address
from ewms.pilot.brokers.amqpwire import (
    ChannelRefused,
    Incoming,
    Nacked,
    Returned,
    Wire,
    WireChannel,
    WireLost,
    open_wire,
)
from ewms.pilot.brokers.base import BrokerError, BrokerLost, BrokerRefused, Delivery, PublishRefused
from ewms.secret import Secret
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

# Heartbeats every half of it; a silent connection is given up after three of it (s).
HEARTBEAT: Final = 15
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 10.0
_CONFIRM_TIMEOUT: Final = 60.0
# A nacked message may be taken a little later (a quorum without its majority), or never (a full queue).
_NACKS: Final = 5
_HAND_BACK_TIMEOUT: Final = 3.0
_DELIVERY_COUNT: Final = "x-delivery-count"
_ACCESS_REFUSED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406


class Tag(NamedTuple):
    """What a verdict needs to know: delivery tags are the channel's, and start anew on the next one."""

    channel: WireChannel
    number: int


@asynccontextmanager
async def connect(address: str, auth_token: Secret, *, give_up_after: float) -> AsyncIterator["RabbitMQ"]:
    """Connect to a RabbitMQ server, and keep connected.

    Raises:
        BrokerRefused: the address is none, or the server refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    where = parse_address(address, auth_token)
    raised: BaseException | None = None
    try:
        async with open_border() as border:
            broker = RabbitMQ(border, where, give_up_after)
            async with broker.kept():
                try:
                    yield broker
                except BaseException as error:
                    raised = error
                    raise
    except BaseExceptionGroup as group:
        # The nurseries in between, whose own tasks raise nothing, wrap what the body raises.
        if raised is None:
            raised = _only(group)
    if raised is not None:
        raise raised


def _only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


class RabbitMQ:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, border: Border, address: AmqpAddress, give_up_after: float) -> None:
        self._border = border
        self._address = address
        self.give_up_after = give_up_after
        self._wire: Wire | None = None
        self._failure: BrokerError | None = None
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Connect, and reconnect as long as this lasts."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._keep)
            try:
                await self.wire()
                yield
            finally:
                self._nursery.cancel_scope.cancel()
                if self._wire is not None:
                    await self._wire.close()

    async def wire(self) -> Wire:
        """The connection, as soon as there is one.

        Raises:
            BrokerRefused, BrokerLost: there will be none.
        """
        while True:
            if self._failure is not None:
                raise type(self._failure)(str(self._failure))
            if self._wire is not None and not self._wire.closed.is_set():
                return self._wire
            await self._changed.wait()

    async def _keep(self) -> None:
        while True:
            try:
                self._wire = await self._reconnect()
            except BrokerError as error:
                self._failure = error
                self._tell()
                return
            self._tell()
            connected_at = trio.current_time()
            await self._wire.closed.wait()
            log.warning("broker connection lost", broker=str(self._address))
            if trio.current_time() - connected_at < _LONGEST_WAIT:
                await trio.sleep(1)

    async def _reconnect(self) -> Wire:
        name = f"ewms-pilot {socket.gethostname()} {os.getpid()}"
        deadline = trio.current_time() + self.give_up_after
        for wait in backoff(_FIRST_WAIT, _LONGEST_WAIT):
            try:
                return await open_wire(self._border, self._address, heartbeat=HEARTBEAT, name=name)
            except WireLost as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(
                        f"the broker at {self._address} was out of reach for {self.give_up_after:g} s: {error}"
                    ) from error
                log.warning(
                    "broker out of reach, trying again",
                    broker=str(self._address),
                    error=str(error),
                    wait_s=round(wait, 1),
                )
            await trio.sleep(wait)
        raise AssertionError("backoff ends")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @asynccontextmanager
    async def source(self, queue: str, *, prefetch: int) -> AsyncIterator["RabbitSource"]:
        """Consume `queue`; leaving hands back what was not given out."""
        assert self._nursery is not None
        source = RabbitSource(self, queue, prefetch)
        scope = trio.CancelScope()
        self._nursery.start_soon(source.keep, scope)
        try:
            await source.opened()
            yield source
        finally:
            scope.cancel()
            await source.close()

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator["RabbitSink"]:
        """Publish to `queue`, which is declared if we may."""
        sink = RabbitSink(self, queue)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()


async def open_queue_channel(broker: RabbitMQ, queue: str, *, publisher_confirms: bool) -> WireChannel:
    """A channel on which `queue` is known to exist: declared, or, where that is refused, found.

    Raises:
        BrokerRefused: it does not exist, or we may not use it.
        WireLost: try again.
        BrokerLost: there is no connection any more.
    """
    for passive in (False, True):
        channel = await (await broker.wire()).open_channel(publisher_confirms=publisher_confirms)
        try:
            await channel.declare(queue, passive=passive)
        except ChannelRefused as error:
            if passive or error.code not in {_ACCESS_REFUSED, _PRECONDITION_FAILED}:
                raise BrokerRefused(f"queue {queue!r} cannot be used: {error}") from error
            continue
        except BaseException:
            await channel.close()
            raise
        return channel
    raise AssertionError("the second refusal is raised")


class RabbitSource:
    """See `ewms.pilot.brokers.base.Source`."""

    def __init__(self, broker: RabbitMQ, queue: str, prefetch: int) -> None:
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._pushed, self._waiting = trio.open_memory_channel[Delivery](math.inf)
        self._settled = trio.Event()
        self._failure: BrokerError | None = None
        self._channel: WireChannel | None = None
        self._consumer_tag = ""
        self._stopped = False
        self._without_verdict: set[Tag] = set()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def opened(self) -> None:
        """Wait until the consumer stands.

        Raises:
            BrokerRefused, BrokerLost: it never will.
        """
        await self._settled.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    async def keep(self, scope: trio.CancelScope) -> None:
        """Keep a consumer on the queue until cancelled, or until there can be none."""
        with scope:
            try:
                await self._consume_for_ever()
            except BrokerError as error:
                self._failure = error
                self._pushed.close()
            finally:
                self._settled.set()

    async def _consume_for_ever(self) -> None:
        delays = backoff(_FIRST_WAIT, _LONGEST_WAIT)
        lost_at: float | None = None
        while not self._stopped:
            try:
                await self._consume()
                delays, lost_at = backoff(_FIRST_WAIT, _LONGEST_WAIT), trio.current_time()
            except (WireLost, ChannelRefused) as error:
                log.warning("cannot consume yet, trying again", queue=self._queue, error=str(error))
            except BrokerRefused as error:
                # After a restart a broker may not know a queue for a while.
                if lost_at is None or trio.current_time() - lost_at > self._broker.give_up_after:
                    raise
                log.warning("cannot consume any more, trying again", queue=self._queue, error=str(error))
            await trio.sleep(next(delays))

    async def _consume(self) -> None:
        channel = await open_queue_channel(self._broker, self._queue, publisher_confirms=False)
        self._channel = channel

        def on_message(message: Incoming) -> None:
            self._pushed.send_nowait(self._delivery(message, channel))

        self._consumer_tag = await channel.consume(self._queue, self._prefetch, on_message)
        self._settled.set()
        await channel.closed.wait()
        self._without_verdict.clear()
        log.warning("consumer lost, starting it again", queue=self._queue, reason=channel.reason)

    def _delivery(self, message: Incoming, channel: WireChannel) -> Delivery:
        count = message.headers.get(_DELIVERY_COUNT)
        return Delivery(
            body=message.body,
            queue=self._queue,
            message_id=message.message_id,
            headers=message.headers,
            returned=count if isinstance(count, int) else int(message.redelivered),
            tag=Tag(channel, message.delivery_tag),
        )

    async def receive(self) -> Delivery:
        """Wait for the next delivery of a living channel."""
        while True:
            try:
                delivery = await self._waiting.receive()
            except trio.EndOfChannel:
                self._raise_failure()
                raise
            if not delivery.tag.channel.closed.is_set():
                self._without_verdict.add(delivery.tag)
                return delivery

    async def ack(self, delivery: Delivery) -> bool:
        """Sent means done: AMQP confirms no acks, and an ack that gets lost means a redelivery."""
        return await self._verdict(delivery, WireChannel.ack)

    async def reject(self, delivery: Delivery) -> bool:
        """Requeue as a failure."""
        return await self._verdict(delivery, WireChannel.reject)

    async def hand_back(self, delivery: Delivery) -> bool:
        """Requeue as not tried (RabbitMQ before 4.3 counts it all the same)."""
        return await self._verdict(delivery, WireChannel.nack)

    async def _verdict(self, delivery: Delivery, give: Callable[[WireChannel, int], Awaitable[None]]) -> bool:
        tag = delivery.tag
        if tag not in self._without_verdict:
            await trio.lowlevel.checkpoint()
            return False
        # A second verdict on one tag would close the channel, and every other delivery would be lost with it.
        self._without_verdict.discard(tag)
        try:
            await give(tag.channel, tag.number)
        except (WireLost, ChannelRefused):
            return False
        return True

    async def stop(self) -> None:
        """Stop consuming, and hand back what was pushed but not given out; the channel stays for verdicts."""
        self._stopped = True
        channel, tag = self._channel, self._consumer_tag
        if channel is None or not tag:
            return
        self._consumer_tag = ""
        try:
            await channel.stop_consuming(tag)
            await self._hand_back_the_rest(channel)
        except (WireLost, ChannelRefused) as error:
            log.debug("the broker takes the rest back by itself", queue=self._queue, reason=str(error))

    async def close(self) -> None:
        """Stop consuming and hand back what was pushed but not given out; closing the channel frees all the rest."""
        channel = self._channel
        if channel is None:
            return
        with trio.move_on_after(_HAND_BACK_TIMEOUT, shield=True) as scope:
            await self.stop()
        if scope.cancelled_caught:
            channel.abort()
        await channel.close()
        self._without_verdict.clear()

    async def _hand_back_the_rest(self, channel: WireChannel) -> None:
        while True:
            try:
                delivery = self._waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            if delivery.tag.channel is channel:
                await channel.nack(delivery.tag.number)


class RabbitSink:
    """See `ewms.pilot.brokers.base.Sink`."""

    def __init__(self, broker: RabbitMQ, queue: str) -> None:
        self._broker = broker
        self._queue = queue
        self._channel: WireChannel | None = None
        self._opening = trio.Lock()
        self._in_flight: set[str] = set()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def open(self) -> None:
        """Make sure that the queue exists."""
        for wait in backoff(_FIRST_WAIT, _LONGEST_WAIT):
            try:
                self._channel = await open_queue_channel(self._broker, self._queue, publisher_confirms=True)
            except WireLost as error:
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
        deadline = trio.current_time() + self._broker.give_up_after
        attempt = _Attempt()
        for wait in backoff(_FIRST_WAIT, _LONGEST_WAIT):
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
            channel = await (await self._broker.wire()).open_channel(publisher_confirms=True)
            try:
                await channel.publish(self._queue, body, message_id=message_id, within=_CONFIRM_TIMEOUT)
            finally:
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
            await channel.close()
            raise

    async def _shared_channel(self) -> WireChannel:
        async with self._opening:
            if self._channel is None or self._channel.closed.is_set():
                self._channel = await (await self._broker.wire()).open_channel(publisher_confirms=True)
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
            PublishRefused: there need not be a next attempt.
        """
        if isinstance(error, Returned):
            raise PublishRefused(f"there is no queue {queue!r}: {error}") from error
        if isinstance(error, ChannelRefused):
            if self.alone or error.code != _PRECONDITION_FAILED:
                raise PublishRefused(f"queue {queue!r} does not take this message: {error}") from error
            self.alone = True
        if isinstance(error, Nacked):
            self._nacks += 1
            if self._nacks >= _NACKS:
                raise PublishRefused(f"queue {queue!r} does not take messages (full?): {error}") from error
