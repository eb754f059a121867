"""A broker and a container platform in memory, with hooks: what the pilot's service is tested with."""

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from ewms.pilot import events, service
from ewms.pilot.brokers.base import Broker, Delivery, Sink, Source
from ewms.pilot.containers.base import Container, ContainerSpec, Mount, Platform, Usage
from ewms.pilot.settings import PilotSettings, read
from ewms.secret import Secret

Task = Callable[[ContainerSpec], Awaitable[int]]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def nothing(*_: Any) -> None:
    """A hook that does nothing."""


def infile(spec: ContainerSpec) -> bytes:
    """What a task reads."""
    return Path(spec.args[0]).read_bytes()


async def copy(spec: ContainerSpec) -> int:
    """A task: `cp {{INFILE}} {{OUTFILE}}`."""
    _write(Path(spec.args[1]), infile(spec))
    return 0


@attrs.define
class World:
    """Everything around one pilot, and a diary of what it did."""

    tmp_path: Path
    task: Task = copy
    on_receive: Callable[[Delivery], Awaitable[object]] = nothing
    on_publish: Callable[[bytes], Awaitable[object]] = nothing
    on_copy: Callable[[str], Awaitable[object]] = nothing
    """Called with the queue before a copy of an event is published."""
    on_verdict: Callable[[str, Delivery], Awaitable[object]] = nothing
    on_check: Callable[[ContainerSpec], Awaitable[object]] = nothing
    on_prepare: Callable[[str], Awaitable[object]] = nothing
    on_connect: Callable[[], Awaitable[object]] = nothing
    lost: set[str] = attrs.field(factory=set)
    """Message ids of deliveries that the broker took back: a verdict on one is not taken."""
    copies: list[tuple[str, events.Event]] = attrs.field(factory=list)
    """Events that pilots put into queues that events come from, or into the dead-letter queue."""
    queues: dict[str, deque[Delivery]] = attrs.field(factory=dict)
    system: Mapping[str, str] = attrs.field(factory=dict)
    """Variables that are not the pilot's own."""
    listening_since: float | None = -math.inf
    """Of all sources."""
    isolates: bool = False
    """Whether containers see their mounts only."""
    redeliver: bool = False
    """Whether a rejected or handed-back event comes again."""
    published: list[tuple[str, events.Event]] = attrs.field(factory=list)
    verdicts: list[tuple[str, str]] = attrs.field(factory=list)
    """(verdict, message id)"""
    diary: list[str] = attrs.field(factory=list)
    memory: int = 0
    """Bytes that each container has now."""
    running: int = 0
    most_running: int = 0
    unsettled: int = 0
    """Deliveries without a verdict."""
    listening: trio.Event = attrs.field(factory=trio.Event)
    lot: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put(self, *data: Any, queue: str = "in", returned: int = 0) -> None:
        """Append events; their message ids are q-0, q-1, …"""
        entries = self.queues.setdefault(queue, deque())
        for value in data:
            number = len(entries)
            entries.append(Delivery(events.encode(value), queue, message_id=f"{queue}-{number}", returned=returned))

    def put_event(self, data: Any, *, message_id: str = "in-0", returned: int = 0, **headers: Any) -> None:
        """Append one event with headers of its own: `ewms_failures=4` is `ewms-failures: 4`."""
        body = events.encode(data, {name.replace("_", "-"): value for name, value in headers.items()})
        self.queues.setdefault("in", deque()).append(Delivery(body, "in", message_id=message_id, returned=returned))
        self.lot.unpark_all()

    def put_parked(self, count: int) -> None:
        """Append events that are parked in their own queue."""
        for number in range(count):
            self.put_event("bad", message_id=f"p{number}", ewms_failures=5, ewms_parked=True)

    def put_body(self, body: bytes) -> None:
        """Append a raw message."""
        self.queues.setdefault("in", deque()).append(Delivery(body, "in", message_id="raw"))

    @property
    def outputs(self) -> list[Any]:
        """The data of what was published."""
        return [event.data for _, event in self.published]

    @property
    def left(self) -> list[events.Event]:
        """What is in the incoming queue."""
        return [events.decode(delivery.body, delivery.message_id) for delivery in self.queues["in"]]

    def settings(self, **more: object) -> PilotSettings:
        """Settings with names shortened: `task_timeout=5` is `EWMS_PILOT_TASK_TIMEOUT=5`."""
        environ = {
            "EWMS_PILOT_TASK_IMAGE": "image",
            "EWMS_PILOT_TASK_ARGS": "{{INFILE}} {{OUTFILE}}",
            "EWMS_PILOT_QUEUE_INCOMING": "in",
            "EWMS_PILOT_QUEUE_OUTGOING": "out",
            "EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST": str(self.tmp_path),
            "EWMS_PILOT_STOP_GRACE": "100",
        }
        environ |= {f"EWMS_PILOT_{name.upper()}": str(value) for name, value in more.items()}
        return read(environ | dict(self.system))

    async def run(self, **more: object) -> int:
        """Run one pilot; its exit status."""
        return await service.main(self.settings(**more), brokers=self._open_broker, platforms=self.open_platform)

    @asynccontextmanager
    async def _open_broker(self, kind: str, address: str, token: Secret) -> AsyncIterator[Broker]:
        await self.on_connect()
        self.diary.append("broker opens")
        try:
            yield FakeBroker(self)
        finally:
            self.diary.append("broker closes")

    @asynccontextmanager
    async def open_platform(self, settings: PilotSettings) -> AsyncIterator[Platform]:
        yield FakePlatform(self, isolates=self.isolates)


@attrs.frozen
class FakeBroker:
    world: World

    def source(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Source]:
        return self._source(queue, prefetch)

    def sink(self, queue: str) -> AbstractAsyncContextManager[Sink]:
        return self._sink(queue)

    @asynccontextmanager
    async def _source(self, queue: str, prefetch: int) -> AsyncIterator[Source]:
        self.world.diary.append("source opens")
        self.world.queues.setdefault(queue, deque())
        yield FakeSource(self.world, queue, prefetch)
        self.world.diary.append("source closes")

    @asynccontextmanager
    async def _sink(self, queue: str) -> AsyncIterator[Sink]:
        yield FakeSink(self.world, queue)


@attrs.define(eq=False)
class FakeSource:
    world: World
    queue: str
    prefetch: int
    _held: int = 0

    async def receive(self) -> Delivery:
        self.world.listening.set()
        while self._held >= self.prefetch or not self.world.queues.get(self.queue):
            await self.world.lot.park()  # polling would make the virtual clock crawl
        delivery = self.world.queues[self.queue].popleft()
        self._held += 1
        self.world.unsettled += 1
        await self.world.on_receive(delivery)
        return delivery

    @property
    def listening_since(self) -> float | None:
        return self.world.listening_since

    def holds(self, delivery: Delivery) -> bool:
        return delivery.message_id not in self.world.lost

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()
        self.world.diary.append("source stops")

    async def ack(self, delivery: Delivery) -> bool:
        return await self._verdict("ack", delivery)

    async def reject(self, delivery: Delivery) -> bool:
        return await self._verdict("reject", delivery)

    async def hand_back(self, delivery: Delivery) -> bool:
        return await self._verdict("hand_back", delivery)

    async def _verdict(self, name: str, delivery: Delivery) -> bool:
        await trio.lowlevel.checkpoint()
        await self.world.on_verdict(name, delivery)
        self.world.verdicts.append((name, delivery.message_id or ""))
        self.world.diary.append(name)
        self._held -= 1
        self.world.unsettled -= 1
        self.world.lot.unpark_all()
        if delivery.message_id in self.world.lost:
            return False
        if self.world.redeliver and name != "ack":
            again = attrs.evolve(delivery, returned=delivery.returned + 1)
            self.world.queues[self.queue].appendleft(again)
        return True


@attrs.frozen
class FakeSink:
    world: World
    queue: str

    async def publish(self, body: bytes, *, message_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.queue in self.world.queues or self.queue == "dead":
            await self._publish_copy(body, message_id)
            return
        await self.world.on_publish(body)
        self.world.published.append((self.queue, events.decode(body, message_id)))
        self.world.diary.append("publish")

    async def _publish_copy(self, body: bytes, message_id: str) -> None:
        await self.world.on_copy(self.queue)
        self.world.copies.append((self.queue, events.decode(body, message_id)))
        self.world.diary.append("copy")
        self.world.queues.setdefault(self.queue, deque()).append(Delivery(body, self.queue, message_id=message_id))
        self.world.lot.unpark_all()


@attrs.frozen
class FakePlatform:
    world: World
    name: str = "fake"
    isolates: bool = False

    async def prepare(self, image: str) -> str:
        await self.world.on_prepare(image)
        return image

    async def check(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()
        await self.world.on_check(spec)

    def path_inside(self, mount: Mount) -> Path:
        return mount.source

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        return self._start(spec)

    @asynccontextmanager
    async def _start(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        world = self.world
        world.running += 1
        world.most_running = max(world.most_running, world.running)
        world.diary.append("container starts")
        spec.stderr.touch()
        try:
            yield FakeContainer(world, spec)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)  # a tree takes a while to die
            world.running -= 1
            world.diary.append("container is gone")


@attrs.frozen
class FakeContainer:
    world: World
    spec: ContainerSpec

    @property
    def usage(self) -> Usage:
        return Usage(cpu_s=0.25, peak_memory=2_000_000)

    async def memory(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return self.world.memory

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return await self.world.task(self.spec)
