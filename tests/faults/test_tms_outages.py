"""Minutes without the WMS, without tokens, without a schedd: the TMS goes on with the rest, and catches up.

In virtual time, at the pace that operators have by default.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from tms_virtual import World, open_world

from ewms.testing.fakeschedd import Moment
from ewms.testing.wms.phases import START_CONFIRMED
from ewms.tms import history
from ewms.tms.condor.base import CondorUnreachable
from ewms.wms.models import Phase

OUTAGE = 600.0
STATUSES = "/v1/tms/statuses/*"


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Threads read and write small files meanwhile: they get a little real time before the clock jumps."""
    return trio.testing.MockClock(autojump_threshold=0.004)


def batches(world: World, since: float) -> list[dict[str, Any]]:
    """The statuses that were sent from then on: taskforce → status → number of jobs."""
    bodies = [json.loads(call.body) for call in world.network.since(since, STATUSES)]
    return [
        {
            uuid: {status: sum(pilots.values()) for status, pilots in statuses.items()}
            for uuid, statuses in body.get("compound_statuses_by_taskforce", {}).items()
        }
        for body in bodies
    ]


def runs(world: World, cluster: int, proc: int) -> None:
    text = f"Job executing on host: <127.0.0.1:9618>\n\tSlotName: slot1_{proc}@ep"
    world.bench.schedd.write(cluster, "001", proc, text)


def board_counts(world: World, uuid: str) -> dict[str, int]:
    report = world.ctx.board.report(uuid)
    statuses = report.compound_statuses if report else {}
    return {status: sum(pilots.values()) for status, pilots in statuses.items()}


async def keeps_watching(world: World, uuid: str, running: int) -> None:
    """The watchers see, at their usual pace, that so many are running."""
    # They look every second; a thread that reads a file on a busy machine lets the virtual clock run on meanwhile.
    assert await world.until(lambda: board_counts(world, uuid).get("RUNNING") == running, 30) <= 20


async def started(world: World, n_workers: int = 4) -> str:
    uuid = world.bench.order(n_workers=n_workers)
    await world.until(lambda: bool(world.bench.taskforce(uuid).compound_statuses))
    return uuid


async def test_ten_minutes_without_the_wms(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(tmp_path) as world:
        bench = world.bench
        uuid, ending = await started(world), await started(world)
        world.network.down, away = "*", trio.current_time()
        waiting = bench.order()
        for proc in range(4):  # something to report every 150 s
            runs(world, 1, proc)
            await keeps_watching(world, uuid, proc + 1)
            await trio.sleep(OUTAGE / 4)
        bench.schedd.finish(2)
        await trio.sleep(5)
        attempts = len(world.network.since(away, "*"))
        assert 20 <= attempts <= 120  # of three children with capped backoff: not a storm, not asleep
        world.network.down, back = "", trio.current_time()
        await world.until(lambda: bool(bench.taskforce(waiting).compound_statuses), 60 + 180 + 60)
        await world.until(lambda: bench.taskforce(ending).phase == Phase.CONDOR_COMPLETE, 60)
        first, *_ = batches(world, back)
        # The newest state, in the first batch.
        assert (first[uuid], first[ending]) == ({"RUNNING": 4}, {"COMPLETED": 4})
    assert bench.taskforce(uuid).compound_statuses == {"RUNNING": {"null": 4}}
    assert len(bench.schedd.queued) == 2


async def test_minutes_without_the_token_endpoint(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(tmp_path) as world:
        bench = world.bench
        uuid = await started(world)
        world.network.down = "/auth/*"
        waiting = bench.order()
        # The token at hand is good for 300 s: until then nothing is to be felt.
        await world.until(lambda: bench.taskforce(waiting).phase == Phase.CONDOR_SUBMIT, 70)
        await trio.sleep(300)
        cut_off = trio.current_time()
        another = bench.order()
        runs(world, 1, 0)
        await keeps_watching(world, uuid, 1)
        await trio.sleep(120)
        assert not world.network.since(cut_off, "/v1/*")  # no call without a token
        world.network.down, back = "", trio.current_time()
        await world.until(lambda: bench.taskforce(another).phase == Phase.CONDOR_SUBMIT, 130)
        await world.until(lambda: bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING", "IDLE"}, 70)
        assert batches(world, back)[0][uuid] == {"RUNNING": 1, "IDLE": 3}


async def test_a_wms_that_accepts_and_never_answers(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(tmp_path) as world:
        uuid = await started(world)
        world.network.silent = "/v1/*"
        runs(world, 1, 0)
        await keeps_watching(world, uuid, 1)
        await trio.sleep(OUTAGE / 4)
        runs(world, 1, 1)
        await keeps_watching(world, uuid, 2)
        world.network.silent, back = "", trio.current_time()
        waiting = world.bench.order()
        # The attempts that hang end by their own deadline.
        await world.until(lambda: world.bench.taskforce(waiting).phase == Phase.CONDOR_SUBMIT, 30 + 60 + 60)
        await world.until(lambda: bool(batches(world, back)), 130)
        assert batches(world, back)[0][uuid] == {"RUNNING": 2, "IDLE": 2}


async def test_a_report_that_arrives_after_a_newer_one_is_put_right(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path) as world:
        uuid, other = await started(world), await started(world)
        await trio.sleep(200)
        quiet = len(batches(world, 0))
        world.network.late, world.network.late_by = STATUSES, 70
        runs(world, 1, 0)
        await world.until(lambda: len(batches(world, 0)) > quiet)
        world.network.late = ""
        runs(world, 1, 1)
        stale, newest = {"RUNNING": {"null": 1}, "IDLE": {"null": 3}}, {"RUNNING": {"null": 2}, "IDLE": {"null": 2}}
        await world.until(lambda: world.bench.taskforce(uuid).compound_statuses == newest, 60)
        await world.until(lambda: world.bench.taskforce(uuid).compound_statuses == stale, 70)
        await world.until(lambda: world.bench.taskforce(uuid).compound_statuses == newest, 120 + 180)
        await trio.sleep(400)
        told = batches(world, 0)[quiet:]
        assert [each[uuid] for each in told] == [{"RUNNING": 1, "IDLE": 3}, *[{"RUNNING": 2, "IDLE": 2}] * 2]
        assert not any(other in each for each in told)  # the late call did not speak of it


@pytest.mark.parametrize("call", [STATUSES, "/v1/tms/condor-rm/*"])
async def test_the_end_is_told_when_nothing_older_can_arrive_any_more(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, call: str
) -> None:
    async with open_world(tmp_path, watcher_interval=20.0) as world:
        uuid = await started(world)
        world.network.late, world.network.late_by, away = call, 100, trio.current_time()
        runs(world, 1, 0)
        await keeps_watching(world, uuid, 1)
        world.bench.stop(uuid)
        await world.until(lambda: bool(world.network.since(away, call)))
        world.network.late = ""
        await world.until(lambda: world.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE, 600)
        await trio.sleep(120)
        taskforce = world.bench.taskforce(uuid)
    assert (taskforce.phase, taskforce.compound_statuses) == (Phase.CONDOR_COMPLETE, {"REMOVED": {"null": 4}})


async def test_a_late_confirmation_of_a_stop_overwrites_no_end_that_only_the_queue_tells(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    def ended_before(world: World) -> None:
        uuid = world.bench.order()
        cluster = {"cluster_id": 7, "n_workers": 2, "submit_dict": {}, "job_event_log_fpath": "/gone"}
        world.bench.standin.state.advance(uuid, START_CONFIRMED, **cluster)
        world.bench.stop(uuid)
        world.network.late, world.network.late_by = "/v1/tms/condor-rm/*", 100

    async with open_world(tmp_path, before=ended_before, audit_interval=60.0) as world:
        (uuid,) = (each.taskforce_uuid for each in world.bench.standin.state.taskforces())
        await world.until(lambda: bool(world.network.since(0, world.network.late)))
        world.network.late = ""
        await world.until(lambda: world.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE, 600)
        await trio.sleep(120)
        assert world.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE


async def test_a_gateway_that_gives_each_second_report_up_holds_no_end_back_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path, watcher_interval=20.0) as world:
        uuid = await started(world)
        world.network.halved = STATUSES
        runs(world, 1, 0)
        await keeps_watching(world, uuid, 1)
        world.bench.stop(uuid)
        await world.until(lambda: world.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE, 600)
        taskforce = world.bench.taskforce(uuid)
    assert taskforce.compound_statuses == {"REMOVED": {"null": 4}}


async def test_a_history_that_never_answers_holds_up_no_start_for_long(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def unanswered(call: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (call, moment) == ("history", "before"):
            raise CondorUnreachable("Failed to receive history ad.")

    async with open_world(tmp_path) as world:
        bench = world.bench
        bench.schedd.hook = unanswered
        first, second = bench.order(), bench.order()
        took = await world.until(lambda: bench.taskforce(first).phase == Phase.CONDOR_SUBMIT, 600)
        assert history.PATIENCE <= took < history.PATIENCE + 130  # the schedd may be restarting: first it is waited for
        assert await world.until(lambda: bench.taskforce(second).phase == Phase.CONDOR_SUBMIT, 100) < 30
    assert len(bench.schedd.queued) == 2


@pytest.mark.parametrize("answers", ["none within the deadline", "no, at once"])
async def test_minutes_without_answers_to_queries(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, answers: str
) -> None:
    async def unanswered(call: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if moment == "before" and call in ("query", "history", "parse", "evaluate"):
            await trio.sleep(60 if answers == "none within the deadline" else 0)
            raise CondorUnreachable("the schedd does not answer")

    async with open_world(tmp_path, outer_loop_wait=10.0, watcher_interval=20.0) as world:
        bench = world.bench
        uuid, stopping = await started(world), await started(world)
        bench.schedd.hook, away = unanswered, trio.current_time()
        waiting = bench.order()
        await trio.sleep(30)
        bench.stop(stopping)
        # Removals have a helper of their own: no hung query is in their way.
        assert await world.until(lambda: bench.taskforce(stopping).phase == Phase.CONDOR_COMPLETE, 120) <= 45
        for proc in range(3):
            runs(world, 1, proc)
            await keeps_watching(world, uuid, proc + 1)
            told = await world.until(lambda: len(batches(world, away)) > proc + 1, 60)  # noqa: B023  waited for here
            assert told <= 40  # reports keep their pace
            await trio.sleep(60)
        assert bench.taskforce(waiting).phase == Phase.PENDING_STARTER
        assert "condor-submit/failed" not in [call.path for call in world.network.calls]

        async def answered(_call: str, _moment: Moment) -> None:
            await trio.lowlevel.checkpoint()

        bench.schedd.hook = answered
        await world.until(lambda: bench.taskforce(waiting).phase == Phase.CONDOR_SUBMIT, 60 + 60 + 10)
    assert len(bench.schedd.queued) == 2
