"""Statuses that the WMS refuses: sent again until it takes them, or given up where only they are refused.

In virtual time.
"""

import re
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from tms_virtual import World, open_world

from ewms.tms.report import Refusals
from ewms.wms.models import Phase

STATUSES = "/v1/tms/statuses/*"
PACE = 20.0  # s between two reports
COMPLETED = {"COMPLETED": {"null": 2}}
MISSING_ROLE = (403, '{"code": 403, "error": "role missing"}')
WRONG = (400, '{"code": 400, "error": "not like this"}')
ODD = (207, '{"results": 7}')


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Threads read and write small files meanwhile: they get a little real time before the clock jumps."""
    return trio.testing.MockClock(autojump_threshold=0.004)


async def started(world: World, taskforces: int) -> list[str]:
    uuids = [world.bench.order() for _ in range(taskforces)]
    await world.until(lambda: all(world.bench.taskforce(uuid).compound_statuses for uuid in uuids), 3600)
    await trio.sleep(2.5 * PACE)  # all is told, and nothing is under way
    return uuids


async def completed(world: World, *uuids: str) -> None:
    await world.until(lambda: all(world.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE for uuid in uuids), 1200)


def calls(world: World, since: float) -> int:
    return len(world.network.since(since, STATUSES))


def report_lag(world: World) -> float:
    lag = re.search(rb"\newms_tms_report_lag_seconds (.*)\n", world.ctx.metrics.text())
    assert lag is not None
    return float(lag[1])


@pytest.mark.parametrize(
    ("taskforces", "refusal"),
    [(2, MISSING_ROLE), (1, MISSING_ROLE), (2, WRONG), (2, ODD)],
    ids=["role", "role, one taskforce", "wrong", "odd"],
)
async def test_what_the_wms_refuses_whatever_it_is_sent_is_told_when_it_is_cured(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, taskforces: int, refusal: tuple[int, str]
) -> None:
    async with open_world(tmp_path, watcher_interval=PACE) as world:
        uuids = await started(world, taskforces)
        world.network.refused, world.network.refusal = STATUSES, refusal
        for cluster in range(1, taskforces + 1):
            world.bench.schedd.finish(cluster)
        await trio.sleep(10 * PACE)
        assert {world.bench.taskforce(uuid).phase for uuid in uuids} == {Phase.CONDOR_SUBMIT}
        assert report_lag(world) > 8 * PACE
        world.network.refused = ""
        await completed(world, *uuids)
        assert [world.bench.taskforce(uuid).compound_statuses for uuid in uuids] == [COMPLETED] * taskforces


async def test_statuses_that_alone_are_refused_are_given_up_and_hold_up_no_other(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path, watcher_interval=PACE) as world:
        bad, *good = await started(world, 5)
        world.network.refused, world.network.bad, since = STATUSES, (bad.encode(),), trio.current_time()
        for cluster in range(1, 6):
            world.bench.schedd.finish(cluster)
        with structlog.testing.capture_logs() as logs:
            await completed(world, bad, *good)
        assert [world.bench.taskforce(uuid).compound_statuses for uuid in good] == [COMPLETED] * 4
        assert world.bench.taskforce(bad).compound_statuses == {"IDLE": {"null": 2}}
        given_up = [entry["taskforce"] for entry in logs if "giving them up" in entry["event"]]
        assert given_up == [bad]
        assert calls(world, since) <= 7  # by halves


async def test_many_whose_statuses_are_refused_silence_no_other(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path, watcher_interval=PACE) as world:
        uuids = await started(world, 12)
        world.network.refused, world.network.bad = STATUSES, tuple(uuid.encode() for uuid in uuids[:9])
        for cluster in range(1, 13):
            world.bench.schedd.finish(cluster)
        await completed(world, *uuids)
        assert [world.bench.taskforce(uuid).compound_statuses for uuid in uuids[9:]] == [COMPLETED] * 3


async def test_the_end_of_a_single_taskforce_whose_statuses_are_refused_is_told_all_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path, watcher_interval=PACE) as world:
        (uuid,) = await started(world, 1)
        world.network.refused, since = STATUSES, trio.current_time()
        world.bench.schedd.finish(1)
        await completed(world, uuid)
        assert calls(world, since) == 3


async def test_a_wms_that_refuses_everything_is_not_called_for_each_taskforce(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path, watcher_interval=PACE) as world:
        uuids = await started(world, 24)
        world.network.refused, since = STATUSES, trio.current_time()
        for cluster in range(1, 25):
            world.bench.schedd.finish(cluster)
        await trio.sleep(10 * PACE)
        assert 9 <= calls(world, since) <= 11 * 16  # of ten reports
        world.network.refused = ""
        await completed(world, *uuids)
        assert {str(world.bench.taskforce(uuid).compound_statuses) for uuid in uuids} == {str(COMPLETED)}


def test_whose_fault_a_refusal_is() -> None:
    refusals = Refusals()
    assert refusals.are_final(["TF-1"], others_accepted=True)
    assert not refusals.are_final(["TF-1", "TF-2"], others_accepted=False)
    assert [refusals.are_final(["TF-1"], others_accepted=False) for _ in range(3)] == [False, False, True]
    # Another one, and a report without any, begin anew.
    assert not refusals.are_final(["TF-2"], others_accepted=False)
    assert not refusals.are_final([], others_accepted=False)
    assert [refusals.are_final(["TF-2"], others_accepted=False) for _ in range(3)] == [False, False, True]
