"""A pilot on RabbitMQ, by the clock: what the broker takes back, refuses, and never answers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pilot_fakes import FakeSink, World, copy
from rabbit_fakes import FakeChannel, FakeLink
from trio.testing import MockClock

from ewms.pilot import events, service
from ewms.pilot.brokers.keptsource import kept
from ewms.pilot.brokers.rabbitsource import RabbitSource
from ewms.pilot.containers.base import ContainerSpec
from ewms.pilot.errors import ExitStatus
from ewms.secret import Secret


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@attrs.frozen
class Broker:
    """Sources are RabbitMQ's, on one channel; sinks are the world's."""

    world: World
    nursery: trio.Nursery
    channel: FakeChannel = attrs.field(factory=FakeChannel)

    @asynccontextmanager
    async def open(self, kind: str, address: str, token: Secret) -> AsyncIterator["Broker"]:
        yield self

    def source(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[RabbitSource]:
        link: Any = FakeLink(self.nursery, lambda: self.channel)
        return kept(RabbitSource(link, queue, prefetch), self.nursery)

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator[FakeSink]:
        yield FakeSink(self.world, queue)


async def test_an_equal_event_is_run_though_another_ones_ack_was_in_doubt(
    autojump_clock: MockClock, world: World
) -> None:
    """RabbitMQ took back the older one of two equal events, and does not say which; both are acknowledged then."""
    same = events.encode("same")

    async def task(spec: ContainerSpec) -> int:
        await trio.sleep(100 if world.running == 1 else 50)
        return await copy(spec)

    async def happen(channel: FakeChannel) -> None:
        await channel.consumes.wait()
        channel.push(same)
        await trio.sleep(50)
        channel.push(same)
        await trio.sleep(40)
        channel.consumer_ended.set()  # the first one is 90 s old, and done at 100 s; the other one at 50 s
        await trio.sleep(1)
        channel.push(same, redelivered=True)  # the first one comes back; it waits, and is acknowledged
        await trio.sleep(100)
        channel.push(same, redelivered=True)  # a pilot that was killed had this one

    world.task = task
    async with trio.open_nursery() as nursery:
        broker = Broker(world, nursery)
        nursery.start_soon(happen, broker.channel)
        settings = world.settings(max_concurrent_tasks=4, prefetch=4, timeout_queue_incoming=300)
        status = await service.main(settings, brokers=broker.open, platforms=world.open_platform)
    assert status == ExitStatus.OK
    assert world.outputs == ["same"] * 3
    assert sorted(broker.channel.verdicts) == [("ack", number) for number in (1, 2, 3, 4)]
