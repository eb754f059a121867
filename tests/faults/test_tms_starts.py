"""Starting, exactly once: whatever is lost and wherever the TMS ends, one confirmed cluster, or none."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from tms_bench import SCHEDD, Bench, until

from ewms.contract import ENVFILE_NAME
from ewms.secret import Secret
from ewms.testing.fakeschedd import Moment
from ewms.testing.wms import Fault
from ewms.tms.condor.base import CondorRefused, CondorUnreachable
from ewms.tms.context import Context
from ewms.tms.entries import Entry
from ewms.wms.models import Phase


def confirmed(bench: Bench, uuid: str) -> Callable[[], bool]:
    return lambda: bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT


def assert_one_cluster(bench: Bench, uuid: str) -> None:
    (cluster,) = [each for each in bench.schedd.clusters.values() if each.uuid == uuid]
    assert bench.taskforce(uuid).cluster_id == cluster.cluster_id
    assert bench.taskforce(uuid).job_event_log_fpath == str(cluster.log_path)
    assert cluster.is_queued


async def test_an_order_becomes_a_confirmed_cluster(bench: Bench) -> None:
    uuid = bench.order(n_workers=3)
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert_one_cluster(bench, uuid)
    taskforce = bench.taskforce(uuid)
    assert taskforce.n_workers == 3
    assert taskforce.submit_dict["max_idle"] == 200
    envfile = bench.settings.job_dir / f"ewms-taskforce-{uuid}" / ENVFILE_NAME
    assert stat.S_IMODE(envfile.stat().st_mode) == 0o600
    assert bench.schedd.calls.count("submit") == 1


async def test_statuses_wait_for_the_confirmation(bench: Bench) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", status=500, count=5))
    async with bench.tms():
        await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
    posts = bench.posts(uuid)
    assert posts[:7] == ["condor-submit"] * 6 + ["statuses"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["query", "parse", "submit"])
async def test_a_schedd_call_whose_answer_is_lost(bench: Bench, call: str, moment: Moment) -> None:
    losses = 1

    async def lose(called: str, when: Moment) -> None:
        nonlocal losses
        await trio.lowlevel.checkpoint()
        if losses and (called, when) == (call, moment):
            losses -= 1
            raise CondorUnreachable("no answer")

    bench.schedd.hook = lose
    uuid = bench.order()
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert_one_cluster(bench, uuid)
    assert not [path for path in bench.posts(uuid) if "failed" in path]  # an outage is not the order's fault


@pytest.mark.parametrize("after", [False, True])
async def test_a_confirmation_whose_answer_is_lost(bench: Bench, after: bool) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True, after=after, count=1))
    async with bench.tms():
        await until(lambda: bench.posts(uuid).count("condor-submit") == 2)
        await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
    assert confirmed(bench, uuid)()
    assert_one_cluster(bench, uuid)


async def end_at(bench: Bench, call: str, moment: Moment) -> None:
    """A run that is cancelled at this moment of this schedd call."""
    reached, leaving = trio.Event(), trio.Event()

    async def block(called: str, when: Moment) -> None:
        if (called, when) == (call, moment):
            reached.set()
            await leaving.wait()
        await trio.lowlevel.checkpoint()  # where a call that is not shielded ends

    bench.schedd.hook = block
    with trio.fail_after(60):
        async with bench.tms():
            await reached.wait()
            leaving.set()  # whoever waits for it wakes up cancelled: nothing is awaited on the way out


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["query", "parse", "submit"])
async def test_a_shutdown_in_the_middle_and_a_new_start(bench: Bench, call: str, moment: Moment) -> None:
    uuid = bench.order()
    await end_at(bench, call, moment)
    assert all(each.is_queued for each in bench.schedd.clusters.values())  # shutting down removes nothing
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert_one_cluster(bench, uuid)


@pytest.mark.parametrize("lost", ["the record", "the ledger", "the queue", "the queue and the history"])
async def test_a_crash_between_submit_and_record(bench: Bench, lost: str) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True))
    async with bench.tms() as ctx:
        await until(lambda: "condor-submit" in bench.posts(uuid))
    bench.standin.faults.clear()
    await ctx.ledger.update(uuid, cluster_id=None)
    if lost == "the ledger":
        await ctx.ledger.forget(uuid)
    (cluster,) = bench.schedd.clusters.values()
    if lost.startswith("the queue"):
        bench.schedd.finish(cluster.cluster_id)
    if lost == "the queue and the history":
        del bench.schedd.clusters[cluster.cluster_id]
    async with bench.tms():
        await until(lambda: bench.taskforce(uuid).cluster_id == cluster.cluster_id)
    assert bench.schedd.calls.count("submit") == 1
    if lost != "the ledger":  # the intent on disk knows what no schedd tells
        assert bench.taskforce(uuid).submit_dict["max_idle"] == 200
        assert bench.taskforce(uuid).n_workers == 2


async def test_a_taskforce_that_completed_before_its_confirmation_was_noted_is_not_completed_again(
    bench: Bench,
) -> None:
    uuid = bench.order()
    async with bench.tms() as ctx:
        await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
        bench.schedd.finish(1)
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
    await ctx.ledger.update(uuid, confirmed_at=None)  # as after a kill -9 between confirmation and its note
    posts = bench.posts(uuid)
    async with bench.tms() as ctx:
        await ctx.outbox.reconciled.wait()
        await trio.sleep(0.3)
        entry = await ctx.ledger.read(uuid)
    assert bench.posts(uuid) == posts
    assert entry is not None
    assert entry.confirmed_at is not None


async def test_an_order_that_was_withdrawn_before_the_submit(bench: Bench) -> None:
    uuid = bench.order()

    async def abort(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (called, when) == ("parse", "after") or called == "query":
            bench.stop(uuid)

    bench.schedd.hook = abort
    async with bench.tms():
        await until(lambda: bench.taskforce(uuid).phase == Phase.PENDING_STOPPER)
        await trio.sleep(0.2)
    assert not bench.schedd.clusters
    assert not bench.posts(uuid)


async def test_an_order_that_was_withdrawn_between_submit_and_confirmation(bench: Bench) -> None:
    uuid, other = bench.order(), bench.order(priority=1)

    async def abort(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (called, when) == ("submit", "after") and bench.taskforce(uuid).phase == Phase.PENDING_STARTER:
            bench.stop(uuid)

    bench.schedd.hook = abort
    async with bench.tms():
        await until(confirmed(bench, other))
    assert [cluster.uuid for cluster in bench.schedd.queued] == [other]
    assert bench.taskforce(uuid).cluster_id is None


async def test_an_order_that_was_withdrawn_while_the_tms_was_down(bench: Bench) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True))
    async with bench.tms():
        await until(lambda: "condor-submit" in bench.posts(uuid))
    assert bench.schedd.queued
    bench.standin.faults.clear()
    bench.stop(uuid)
    async with bench.tms():
        await until(lambda: not bench.schedd.queued)


@pytest.mark.parametrize(
    ("worker_config", "reason"),
    [
        ({"worker_memory": "junk"}, "worker_memory: 'junk' is not a size"),
        ({"condor_requirements": "a) || (b"}, "HTCondor cannot parse"),
        ({"condor_requirements": "true\n+Evil = 1"}, "condor_requirements"),
    ],
)
async def test_a_bad_order_is_told_and_stops_nobody_else(
    bench: Bench, worker_config: dict[str, Any], reason: str
) -> None:
    bad, good = bench.order(priority=99, **worker_config), bench.order(priority=1)
    async with bench.tms():
        await until(confirmed(bench, good))
        await until(lambda: bench.posts(bad).count("condor-submit/failed") == 3)
    failures = [each.context for each in bench.taskforce(bad).phase_change_log if not each.was_successful]
    assert len(failures) == 3
    assert all(reason in failure for failure in failures)
    assert [cluster.uuid for cluster in bench.schedd.clusters.values()] == [good]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("link/ewms-taskforce-x/ewms-x", "leads into the TMS's own job directory"),
        ("up", "leads to what holds the TMS's own job directory"),
        ("spool/1/0", "leads into other jobs' files"),
        ("execute/dir_7", "leads into other jobs' files"),
    ],
)
async def test_an_order_for_what_is_closed_to_orders_is_told_and_brings_nothing(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, asked: str, reason: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    bench.schedd.params |= {"SPOOL": str(outside / "spool"), "EXECUTE": str(outside / "execute")}
    (outside / "link").symlink_to(bench.settings.job_dir)
    (outside / "up").symlink_to(bench.settings.job_dir.parent)
    (outside / "execute").mkdir()
    bad, good = bench.order(priority=99, input_files=[str(outside / asked)]), bench.order(input_files=["/missing"])
    async with bench.tms():
        await until(confirmed(bench, good))
        await until(lambda: bench.posts(bad).count("condor-submit/failed") == 3)
    failures = [each.context for each in bench.taskforce(bad).phase_change_log if not each.was_successful]
    assert all(reason in failure for failure in failures)
    assert [cluster.uuid for cluster in bench.schedd.clusters.values()] == [good]


async def test_a_ledger_entry_that_cannot_be_read_is_told_and_stops_nobody_else(bench: Bench) -> None:
    bad = bench.order(priority=99)
    (bench.settings.state_dir / "ledger" / f"{bad}.json").mkdir(parents=True)
    good = bench.order(priority=1)
    async with bench.tms():
        await until(lambda: bench.taskforce(good).phase == Phase.CONDOR_SUBMIT)
    assert "cannot prepare the taskforce" in bench.taskforce(bad).phase_change_log[-1].context
    assert bench.schedd.calls.count("submit") == 1


@pytest.mark.parametrize("log_path", ["a-directory", "a-file/2026-11-21.tms.jel"])
async def test_a_log_that_may_know_the_cluster_and_cannot_be_read_is_told_and_stops_nobody_else(
    bench: Bench, log_path: str
) -> None:
    jobs = bench.settings.job_dir
    (jobs / "a-directory").mkdir()
    (jobs / "a-file").touch()
    bad, good = bench.order(priority=99), bench.order(priority=1)

    def intend(ctx: Context) -> None:
        ctx.ledger.write_now(
            Entry(taskforce_uuid=bad, log_path=str(jobs / log_path), n_workers=2, intended_at=1.0)  # and then kill -9
        )

    async with bench.tms(intend) as ctx:
        await until(confirmed(bench, good))
        entry = await ctx.ledger.read(bad)
    failures = [each.context for each in bench.taskforce(bad).phase_change_log if not each.was_successful]
    assert len(failures) == 3
    assert all("a log that cannot be read" in each and log_path in each for each in failures)
    assert bench.schedd.calls.count("submit") == 1
    assert entry is not None
    assert entry.is_unsettled  # whoever mends the log and asks for the taskforce again has what there is found


async def test_a_submit_that_htcondor_refuses_is_told_in_its_own_words(bench: Bench) -> None:
    uuid = bench.order()

    async def refuse(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if called == "submit":
            raise CondorRefused("SUBMIT_REQUIREMENTS says no")

    bench.schedd.hook = refuse
    async with bench.tms() as ctx:
        await until(lambda: bench.posts(uuid).count("condor-submit/failed") == 3)
        await until(lambda: not ctx.outbox.counts())
        assert await ctx.ledger.read(uuid) is None
    assert "SUBMIT_REQUIREMENTS says no" in bench.taskforce(uuid).phase_change_log[-1].context
    assert not list(bench.settings.job_dir.rglob(ENVFILE_NAME))  # no token stays behind


async def test_no_token_is_written_anywhere_but_into_the_envfile(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    object.__setattr__(bench.standin.state.queues, "auth_token", Secret("QUEUE-TOKEN"))
    uuid = bench.order()
    async with bench.tms():
        await until(confirmed(bench, uuid))
    holders = [
        path for path in bench.settings.job_dir.rglob("*") if path.is_file() and b"QUEUE-TOKEN" in path.read_bytes()
    ]
    assert holders == [bench.settings.job_dir / f"ewms-taskforce-{uuid}" / ENVFILE_NAME]
    assert "QUEUE-TOKEN" not in "".join(capfd.readouterr())
    assert "QUEUE-TOKEN" not in str(bench.taskforce(uuid))


async def test_midnight_between_intent_and_the_next_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = bench.order()
    days = iter(["2026-11-21", *["2026-11-22"] * 100])
    monkeypatch.setattr("ewms.tms.starting.today", lambda: next(days))
    await end_at(bench, "submit", "before")
    for cluster in list(bench.schedd.clusters):  # as if it had been killed in time
        del bench.schedd.clusters[cluster]

    def forget_the_cluster(ctx: Context) -> None:
        entry = ctx.ledger.read_now(uuid)
        assert entry is not None
        ctx.ledger.write_now(attrs.evolve(entry, cluster_id=None))

    async with bench.tms(forget_the_cluster):
        await until(confirmed(bench, uuid))
    assert Path(bench.taskforce(uuid).job_event_log_fpath).name == "2026-11-21.tms.jel"
    assert bench.taskforce(uuid).schedd == SCHEDD


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_cluster_that_was_withdrawn_is_not_taken_for_the_next_attempts(bench: Bench, moment: Moment) -> None:
    """The WMS refused its confirmation; it is removed, but HTCondor still knows it."""
    submits = 0

    async def lose_second_submit(called: str, when: Moment) -> None:
        nonlocal submits
        await trio.lowlevel.checkpoint()
        if (called, when) == ("submit", moment):
            submits += 1
            if submits == 2:
                raise CondorUnreachable("no answer")

    bench.schedd.hook = lose_second_submit
    bench.standin.faults.add(Fault(path="*/condor-submit/taskforces/*", status=400, count=1))
    uuid = bench.order()
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert bench.taskforce(uuid).cluster_id == 2
    assert [cluster.cluster_id for cluster in bench.schedd.queued] == [2]


async def test_of_two_clusters_the_confirmed_one_stays_though_nothing_on_disk_says_which_it_is(bench: Bench) -> None:
    """The withdrawn one is the older, and takes its time to leave the queue; the ledger's entry is damaged."""
    bench.standin.faults.add(Fault(path="*/condor-submit/taskforces/*", status=400, count=1))
    uuid = bench.order()
    async with bench.tms():
        await until(confirmed(bench, uuid))
    assert bench.taskforce(uuid).cluster_id == 2
    bench.schedd.clusters[1].is_queued = True
    (bench.settings.state_dir / "ledger" / f"{uuid}.json").write_text("{")
    async with bench.tms() as ctx:
        await until(lambda: not (entry := ctx.ledger.read_now(uuid)) or entry.confirmed_at is not None)
    assert [cluster.cluster_id for cluster in bench.schedd.queued] == [2]
