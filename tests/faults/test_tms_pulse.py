"""A TMS that has nothing to do says so: a silent log means a dead one."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from tms_virtual import World, open_world

from ewms.testing.fakeschedd import Moment

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Threads read and write small files meanwhile: they get a little real time before the clock jumps."""
    return trio.testing.MockClock(autojump_threshold=0.004)


def alive(lines: Lines) -> Lines:
    return [line for line in lines if line["event"] == "TMS alive"]


async def started(world: World) -> None:
    uuid = world.bench.order()
    await world.until(lambda: bool(world.bench.taskforce(uuid).compound_statuses))


async def test_it_says_in_each_interval_that_it_lives_and_what_it_has(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with open_world(tmp_path, max_logging_interval=60.0, watcher_interval=20.0) as world:
            await started(world)
            before = len(alive(lines))
            await trio.sleep(5 * 60 + 30)
            told = alive(lines)[before:]
    assert len(told) in (5, 6)
    assert [(line["open"], line["stuck"], line["log_level"]) for line in told] == [(1, [], "info")] * len(told)


async def test_it_names_who_shows_no_life(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async def hang(call: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if call == "query":
            await trio.sleep_forever()  # without any deadline: that is a bug

    with structlog.testing.capture_logs() as lines:
        async with open_world(tmp_path, may_be_stuck=True, max_logging_interval=60.0) as world:
            await started(world)
            world.bench.schedd.hook = hang
            world.bench.order()
            await world.until(lambda: any(line["stuck"] == ["starts"] for line in alive(lines)), 600)
