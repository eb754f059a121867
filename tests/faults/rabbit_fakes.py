"""RabbitMQ's wire as the adapter sees it: a channel that does what a test says, and a link that makes such channels."""

from collections.abc import Awaitable, Callable

import attrs
import trio

from ewms.pilot.brokers.amqpwire import Incoming


async def nothing(*_: object) -> None:
    """A hook that does nothing."""


@attrs.define(eq=False)
class FakeChannel:
    """Notes verdicts; hooks run before what they are named after."""

    on_declare: Callable[[], Awaitable[object]] = nothing
    on_consume: Callable[[], Awaitable[object]] = nothing
    on_publish: Callable[[], Awaitable[object]] = nothing
    closed: trio.Event = attrs.field(factory=trio.Event)
    consumer_ended: trio.Event = attrs.field(factory=trio.Event)
    consumes: trio.Event = attrs.field(factory=trio.Event)
    reason: str = "ended by the test"
    verdicts: list[tuple[str, int]] = attrs.field(factory=list)
    pushed: int = 0
    stopped: list[str] = attrs.field(factory=list)
    """The tags of consumers that were stopped."""
    _on_message: Callable[[Incoming], None] | None = None

    def push(self, body: bytes, *, redelivered: bool = False) -> None:
        """Deliver a message without an id, as `oms-mqclient` publishes them."""
        assert self._on_message is not None
        self.pushed += 1
        self._on_message(Incoming(body, None, {}, redelivered=redelivered, delivery_tag=self.pushed))

    async def declare(self, queue: str, *, passive: bool) -> None:
        await trio.lowlevel.checkpoint()
        await self.on_declare()

    async def consume(self, queue: str, prefetch: int, on_message: Callable[[Incoming], None]) -> str:
        await trio.lowlevel.checkpoint()
        await self.on_consume()
        self.consumer_ended = trio.Event()
        self._on_message = on_message
        self.consumes.set()
        return "tag"

    async def stop_consuming(self, consumer_tag: str) -> None:
        await trio.lowlevel.checkpoint()
        self.stopped.append(consumer_tag)

    async def publish(self, queue: str, body: bytes, *, message_id: str, within: float) -> None:
        await trio.lowlevel.checkpoint()
        await self.on_publish()

    async def ack(self, delivery_tag: int) -> None:
        await self._verdict("ack", delivery_tag)

    async def reject(self, delivery_tag: int) -> None:
        await self._verdict("reject", delivery_tag)

    async def nack(self, delivery_tag: int) -> None:
        await self._verdict("nack", delivery_tag)

    async def _verdict(self, name: str, delivery_tag: int) -> None:
        await trio.lowlevel.checkpoint()
        self.verdicts.append((name, delivery_tag))

    async def close(self) -> None:
        self.closed.set()
        self.consumer_ended.set()
        await trio.lowlevel.checkpoint()


@attrs.define
class FakeLink:
    """A connection that lasts, and the channels that were opened on it."""

    nursery: trio.Nursery
    make: Callable[[], FakeChannel] = FakeChannel
    give_up_after: float = 600.0
    channels: list[FakeChannel] = attrs.field(factory=list)

    async def wire(self) -> "FakeLink":
        await trio.lowlevel.checkpoint()
        return self

    async def open_channel(self, *, publisher_confirms: bool) -> FakeChannel:
        await trio.lowlevel.checkpoint()
        self.channels.append(self.make())
        return self.channels[-1]
