"""Constant memory: thousands of events leave nothing behind in a pilot."""

import gc
import logging
import math
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio
from pilot_fakes import FakePlatform, World

from ewms.pilot import events, service
from ewms.pilot import memory as memories
from ewms.pilot.brokers.base import Delivery
from ewms.pilot.containers.base import Container, ContainerSpec, Platform, Usage
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import PilotSettings
from ewms.secret import Secret

EVENTS = 600
MORE_BYTES = 200
"""For each event between two measurements: any object that stays behind is larger."""


def write(outfile: str) -> None:
    Path(outfile).write_bytes(b"output")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Endless:
    """A broker and a platform that do nothing, and remember nothing."""

    name = "nothing"
    isolates = False
    queue = "in"
    listening_since = -math.inf

    def __init__(self) -> None:
        self.numbers = count(1)
        self.acked = 0
        self.published = 0
        self.started = 0
        self.held: list[int] = []

    @asynccontextmanager
    async def open_broker(self, kind: str, address: str, token: Secret) -> AsyncIterator["Endless"]:
        yield self

    @asynccontextmanager
    async def open_platform(self, settings: PilotSettings) -> AsyncIterator[Platform]:
        yield self

    @asynccontextmanager
    async def source(self, queue: str, *, prefetch: int) -> AsyncIterator["Endless"]:
        yield self

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator["Endless"]:
        yield self

    async def receive(self) -> Delivery:
        await trio.lowlevel.checkpoint()
        number = next(self.numbers)
        if number > EVENTS:
            await trio.sleep_forever()
        return Delivery(events.encode(f"event {number}"), "in", message_id=f"id-{number}", returned=number % 2)

    async def publish(self, body: bytes, *, message_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.published += 1

    def holds(self, delivery: Delivery) -> bool:
        return True

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()

    async def ack(self, delivery: Delivery) -> bool:
        await trio.lowlevel.checkpoint()
        self.acked += 1
        if self.acked % (EVENTS // 3) == 0:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])
        return True

    async def reject(self, delivery: Delivery) -> bool:
        raise AssertionError(delivery)

    async def hand_back(self, delivery: Delivery) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def prepare(self, image: str) -> str:
        return image

    async def check(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()

    path_inside = FakePlatform.path_inside

    @asynccontextmanager
    async def start(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        self.started += 1
        write(spec.args[1])
        yield Nothing(self.started)


class Nothing:
    """A container; every tenth one fails, in a way of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.usage = Usage(cpu_s=self.number / 100, peak_memory=self.number * 1000)

    async def memory(self) -> int | None:
        return None

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return 1 + self.number % 200 if self.number % 10 == 0 else 0


async def test_memory_does_not_grow_with_the_events(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memories, "MAX_REMEMBERED", EVENTS // 10)
    endless = Endless()
    settings = world.settings(
        stop_listening_on_task_error="no", max_concurrent_tasks=4, keep_failed_count=20, quarantine_time=0
    )
    with caplog.at_level(logging.CRITICAL):
        tracemalloc.start()
        try:
            status = await service.main(settings, brokers=endless.open_broker, platforms=endless.open_platform)
        finally:
            tracemalloc.stop()
    assert status == ExitStatus.TASKS_FAILED
    assert endless.acked == EVENTS
    assert endless.published == EVENTS  # an output, or a copy with one more failure
    first, second, third = endless.held
    # Python's own table of interned strings doubles once in a while; a leak would be seen both times.
    assert min(second - first, third - second) < MORE_BYTES * EVENTS // 3
