"""The day of many workers is the same each time, its computed costs are true, and docs/scale.md shows it as it is."""

import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

import attrs
import daylog
import pytest
import scale
import trio.testing
from scale import Plan, count, day, loads, publish, worst
from seeding import document, until
from tms_virtual import World, open_world
from unit_costs import COSTS, LIMITS

from ewms.pilot.brokers.base import Broker
from ewms.pilot.service import Connections
from ewms.pilot.settings import read
from ewms.secret import Secret
from ewms.tms.board import TaskforceReport
from ewms.tms.report import MAX_TASKFORCES, size_of
from ewms.wms.models import Phase

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
WORKERS = 300
NEVER = 7200.0
"""Between two polls: none comes by itself (s)."""


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """It goes as all clocks do, and can jump."""
    return trio.testing.MockClock(rate=1)


def logged(updates: int) -> tuple[Counter[bytes], Counter[bytes], bytes]:
    """Bytes and numbers of a taskforce's log events by their kind, and all of its log."""
    sizes: Counter[bytes] = Counter()
    numbers: Counter[bytes] = Counter()
    events = list(daylog.lines(daylog.Day(taskforces=1, workers=WORKERS, updates=updates)))
    for event in events:
        sizes[event[:3]] += len(event)
        numbers[event[:3]] += 1
    return sizes, numbers, b"".join(events)


def of_the_log() -> dict[str, float]:
    """What a worker writes into it."""
    sizes, numbers, _ = logged(0)
    many_sizes, many_numbers, log = logged(9)
    runs = numbers[b"001"]
    return {
        "life_bytes": sum(sizes.values()) / runs,
        "life_lines": sum(numbers.values()) / runs,
        "update_bytes": (many_sizes[b"008"] - sizes[b"008"]) / 9 / runs,
        "update_lines": (many_numbers[b"008"] - numbers[b"008"]) / 9 / runs,
        "size_bytes": many_sizes[b"006"] / many_numbers[b"006"],
        "packed": len(gzip.compress(log, 6)) / len(log),
    }


def of_the_reports() -> dict[str, float]:
    """What a batch of statuses is."""
    statuses = {
        "IDLE": {"null": 120},
        "RUNNING": {"Tasking": 360, "AwaitingFirstMessage": 10},
        "COMPLETED": {"Done": 10},
    }
    errors = {"task failed (exit code 137): Killed": 4}
    uuid = "TF-6b0244e1-8d41a391-28ee3db8-3afc62c4"
    return {"entry_bytes": size_of(TaskforceReport(uuid, 7, statuses, errors, None)), "batch": MAX_TASKFORCES}


async def of_the_orders(directory: Path, clock: trio.testing.MockClock) -> dict[str, float]:
    """What a TMS asks of the WMS for a taskforce."""
    uuid = ""

    def order() -> None:
        nonlocal uuid
        uuid = world.bench.order()

    def is_in(phase: Phase) -> bool:
        return bool(uuid) and document(world, uuid)["phase"] == phase

    async with open_world(directory, may_be_stuck=True, outer_loop_wait=NEVER, watcher_interval=0.05) as world:
        # What a start asks: the two polls, and which taskforces are open.
        await until(lambda: len(world.network.since(0, "/v1/*")) == 3)
        return {
            "start_calls": await calls(world, clock, order, lambda: is_in(Phase.CONDOR_SUBMIT)),
            "stop_calls": await calls(
                world, clock, lambda: world.bench.stop(uuid), lambda: is_in(Phase.CONDOR_COMPLETE)
            ),
        }


async def calls(
    world: World, clock: trio.testing.MockClock, act: Callable[[], None], is_over: Callable[[], bool]
) -> int:
    """Requests beside statuses, and beside the two polls that come anyway: one for each kind of order."""
    first = len(world.network.calls)

    def since(pattern: str) -> list[str]:
        return [call.path for call in world.network.calls[first:] if fnmatchcase(call.path, pattern)]

    act()
    clock.jump(NEVER)
    # After an order the next one is asked for at once.
    await until(lambda: is_over() and len(since("/v1/tms/pending-st*")) >= 3)
    return len(since("/v1/*")) - len(since("/v1/tms/statuses/*")) - 2


async def of_a_pilot() -> dict[str, float]:
    """How many connections it opens when its queues have a token each."""
    opened: list[str] = []

    @asynccontextmanager
    async def open_one(_type: str, address: str, _token: Secret) -> AsyncIterator[Broker]:
        await trio.lowlevel.checkpoint()
        opened.append(address)
        yield cast("Broker", None)

    queues = {f"EWMS_PILOT_QUEUE_{way}": way for way in ("INCOMING", "OUTGOING")}
    tokens = {f"{name}_AUTH_TOKEN": name for name in queues}
    settings = read({"EWMS_PILOT_TASK_IMAGE": "image", **queues, **tokens})
    async with AsyncExitStack() as stack:
        connections = Connections(stack, open_one)
        for address in (*settings.incoming, *settings.outgoing):
            await connections.broker(address)
    return {"connections": len(opened)}


async def test_what_is_computed_is_what_the_table_says(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    found = of_the_log() | of_the_reports() | await of_the_orders(tmp_path, mock_clock) | await of_a_pilot()
    assert found.keys() == {name for name, each in COSTS.items() if each.origin == "computed"}
    # Libraries pack a little differently.
    accuracy = {"packed": 0.1}
    assert found == {name: pytest.approx(COSTS[name].value, rel=accuracy.get(name, 0.01)) for name in found}


def test_the_day_is_the_same_each_time_and_holds_together() -> None:
    plan = Plan(workers=5_000, events=5e7)
    minutes = list(day(plan))
    assert minutes == list(day(plan))
    assert minutes != list(day(plan, seed=2))
    assert len(minutes) == scale.MINUTES
    running = [minute.running for minute in minutes]
    assert max(running) == plan.workers
    assert running[scale.SITE_LOST] == pytest.approx(plan.workers * (1 - scale.SITE_SHARE), rel=0.01)
    assert running[scale.SITE_WHOLE] == plan.workers
    totals = count(plan)
    # A worker's hours are what they are said to be: the pool is filled once, lost in part, and else replaced.
    expected = sum(running) / 60 / plan.worker_hours + plan.workers * (1 + scale.SITE_SHARE)
    assert totals.lives == pytest.approx(expected, rel=0.05)
    assert totals.messages == plan.events * 8


def test_more_workers_load_nobody_less_and_more_carriers_nobody_more() -> None:
    small, large = Plan().of_size(10_000), Plan()
    assert (small.events, large.of_size(10_000)) == (1e8, small)
    for before, after in zip(loads(small), loads(large), strict=True):
        assert before.share <= after.share
    wider = attrs.evolve(large, access_points=4, broker_nodes=4, queues=4)
    for before, after in zip(loads(large), loads(wider), strict=True):
        assert after.share <= before.share or before.name == "requests to the WMS"  # each TMS polls


def test_what_there_is_is_counted() -> None:
    assert {load.name for load in loads(Plan())} == LIMITS.keys()
    assert worst(Plan()).share == max(load.share for load in loads(Plan()))


def test_the_page_shows_the_tables_as_they_are() -> None:
    text = PAGE.read_text()
    assert publish(text, Plan()) == text, "python tests/bench/scale.py --docs docs/scale.md"


def test_the_command_of_the_page() -> None:
    program = Path(scale.__file__)
    command = [sys.executable, str(program), "--workers", "20000", "--events", "2e8", "--access-points", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "a day of 20,000 workers and 200,000,000 events" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("The fullest is: ")
