"""Starts without the schedd's history, and with a broken schedd helper: never a second cluster, never stuck."""

from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from tms_bench import Bench, until

from ewms.contract import ENVFILE_NAME
from ewms.testing.fakeschedd import Hook, Moment
from ewms.testing.wms import Fault
from ewms.tms import starting
from ewms.tms.condor.base import CondorBroken, CondorRefused
from ewms.wms.models import Phase


def confirmed(bench: Bench, uuid: str) -> Callable[[], bool]:
    return lambda: bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT


def failing(error: Exception, call: str, moment: Moment = "before") -> Hook:
    async def hook(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (called, when) == (call, moment):
            raise error

    return hook


REFUSED = CondorRefused("Remote history has been disabled on this schedd")
BROKEN = CondorBroken("ValueError: nobody thought of it", "Traceback …")


@pytest.mark.parametrize("fault", [REFUSED, BROKEN])
async def test_a_history_that_cannot_be_asked_is_said_once_and_starts_go_on(bench: Bench, fault: Exception) -> None:
    bench.schedd.hook = failing(fault, "history")
    uuids = [bench.order() for _ in range(3)]
    with capture_logs() as logs:
        async with bench.tms() as ctx:
            for uuid in uuids:
                await until(confirmed(bench, uuid))
            assert b"ewms_tms_history_missing 1.0" in ctx.metrics.text()
            said = [line for line in logs if "history cannot be asked" in line["event"]]
            assert [str(fault) in line["error"] for line in said] == [True]
            assert "HISTORY_HELPER_MAX_CONCURRENCY" in said[0]["advice"]
            bench.schedd.hook = failing(fault, "nothing")
            await until(confirmed(bench, bench.order()))
            assert b"ewms_tms_history_missing 0.0" in ctx.metrics.text()
    assert [line["event"] for line in logs if "can be asked again" in line["event"]]
    assert len(bench.schedd.queued) == 4


@pytest.mark.parametrize("left", ["an intent", "a damaged entry", "no entry"])
async def test_without_the_history_the_log_knows_a_cluster_that_is_gone(bench: Bench, left: str) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True))
    async with bench.tms() as ctx:
        await until(lambda: "condor-submit" in bench.posts(uuid))
    bench.standin.faults.clear()
    await ctx.ledger.update(uuid, cluster_id=None)
    if left == "a damaged entry":
        (bench.settings.state_dir / "ledger" / f"{uuid}.json").write_text("{")
    if left == "no entry":
        await ctx.ledger.forget(uuid)
    (cluster,) = bench.schedd.clusters.values()
    bench.schedd.finish(cluster.cluster_id)
    bench.schedd.hook = failing(REFUSED, "history")
    async with bench.tms():
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
    assert bench.schedd.calls.count("submit") == 1
    taskforce = bench.taskforce(uuid)
    assert (taskforce.cluster_id, taskforce.job_event_log_fpath) == (1, str(cluster.log_path))


@pytest.mark.parametrize("call", ["query", "parse", "submit"])
@pytest.mark.parametrize("fault", [CondorRefused("permission denied"), BROKEN])
async def test_a_start_that_is_refused_or_broken_again_and_again_fails_and_holds_up_no_other(
    bench: Bench, fault: Exception, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "PATIENCE", 0.0)
    bench.schedd.hook = failing(fault, call)
    bad = bench.order(priority=99)
    async with bench.tms() as ctx:
        await until(lambda: bench.posts(bad).count("condor-submit/failed") == 3)
        assert str(fault) in bench.taskforce(bad).phase_change_log[-1].context
        assert await ctx.ledger.read(bad) is None  # nothing was submitted
        bench.schedd.hook = failing(fault, "nothing")
        await until(confirmed(bench, bench.order(priority=1)))
    assert len(bench.schedd.queued) == 1
    assert len(list(bench.settings.job_dir.rglob(ENVFILE_NAME))) <= 2


async def test_a_submit_that_breaks_after_the_schedd_acted_is_found(bench: Bench) -> None:
    bench.schedd.hook = failing(BROKEN, "submit", "after")
    uuid = bench.order()
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert [cluster.uuid for cluster in bench.schedd.queued] == [uuid]
    assert "condor-submit/failed" not in bench.posts(uuid)


async def test_a_start_is_not_called_failed_while_nobody_says_whether_there_is_a_cluster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "PATIENCE", 0.0)
    submitted = False

    async def break_from_the_submit_on(called: str, when: Moment) -> None:
        nonlocal submitted
        await trio.lowlevel.checkpoint()
        submitted = submitted or (called, when) == ("submit", "after")
        if submitted:
            raise BROKEN

    bench.schedd.hook = break_from_the_submit_on
    uuid = bench.order()
    with capture_logs() as logs:
        async with bench.tms():
            await until(lambda: any("there may be a cluster" in line["event"] for line in logs))
            assert bench.posts(uuid) == []
            bench.schedd.hook = failing(BROKEN, "nothing")
            await until(confirmed(bench, uuid))
    assert bench.schedd.calls.count("submit") == 1


async def test_a_withdrawn_cluster_that_cannot_be_removed_holds_up_no_other(bench: Bench) -> None:
    uuid, other = bench.order(priority=99), bench.order(priority=1)

    async def abort(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (called, when) == ("submit", "after") and bench.taskforce(uuid).phase == Phase.PENDING_STARTER:
            bench.stop(uuid)
        if called == "act":
            raise CondorRefused("permission denied")

    bench.schedd.hook = abort
    with capture_logs() as logs:
        async with bench.tms() as ctx:
            await until(confirmed(bench, other))
            entry = await ctx.ledger.read(uuid)
    assert entry is not None
    assert entry.withdrawn_at is None
    assert [line["error"] for line in logs if "cannot be removed" in line["event"]] == ["permission denied"]
    bench.schedd.hook = failing(BROKEN, "nothing")
    async with bench.tms():  # the next start tries again
        await until(lambda: [cluster.uuid for cluster in bench.schedd.queued] == [other])


async def test_a_stop_whose_removal_breaks_is_told_and_tried_again(bench: Bench) -> None:
    async with bench.tms():
        uuid = bench.order()
        await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
        bench.schedd.hook = failing(BROKEN, "act")
        bench.stop(uuid)
        await until(lambda: "condor-rm/failed" in bench.posts(uuid))
        assert str(BROKEN) in bench.taskforce(uuid).phase_change_log[-1].context
        bench.schedd.hook = failing(BROKEN, "nothing")
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
