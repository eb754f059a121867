"""Stopping, reporting and completing: the order of the WMS's calls, and consistent ends of odd stories."""

import errno
import gc
import json
import math
import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from tms_bench import Bench, until

from ewms.secret import MASK, Secret, redact
from ewms.testing.fakeschedd import Moment
from ewms.testing.wms import Fault
from ewms.tms.condor.base import CondorRefused, CondorUnreachable
from ewms.tms.entries import Entry, parse
from ewms.tms.eventlog.reader import Piece, Position, read_on
from ewms.tms.outbox import Stage
from ewms.wms.models import Phase


async def started(bench: Bench, n_workers: int = 2) -> str:
    """A taskforce of which the WMS has heard statuses (a TMS is running)."""
    uuid = bench.order(n_workers=n_workers)
    await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
    return uuid


async def completed(bench: Bench, uuid: str) -> None:
    await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)


async def test_a_cluster_that_ends_by_itself_is_completed_once_after_its_last_statuses(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.finish(1)
        await completed(bench, uuid)
        await trio.sleep(0.2)
    posts = bench.posts(uuid)
    assert posts.count("condor-complete") == 1
    assert posts[0] == "condor-submit"
    assert posts[-2:] == ["statuses", "condor-complete"]
    assert sum(sum(pilots.values()) for pilots in bench.taskforce(uuid).compound_statuses.values()) == 2
    assert bench.taskforce(uuid).phase_change_log[-1].source_event_time is not None


async def test_a_stop_order_removes_the_cluster_and_ends_in_order(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench, n_workers=3)
        bench.stop(uuid)
        with capture_logs() as logs:
            await completed(bench, uuid)
    assert [each["jobs"] for each in logs if each["event"] == "cluster removed"] == [3]
    posts = bench.posts(uuid)
    assert [each for each in posts if each != "statuses"] == ["condor-submit", "condor-rm", "condor-complete"]
    assert not bench.schedd.queued
    assert bench.schedd.calls.count("act") == 1


async def test_a_restart_does_not_complete_again(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.finish(1)
        await completed(bench, uuid)
    async with bench.tms() as ctx:
        await ctx.outbox.reconciled.wait()
        await trio.sleep(0.3)
    assert bench.posts(uuid).count("condor-complete") == 1


async def test_the_end_while_the_tms_was_down_is_told_by_one_batch(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
    bench.schedd.finish(1)
    before = len(bench.posts(uuid))
    async with bench.tms():
        await completed(bench, uuid)
    assert bench.posts(uuid)[before:] == ["statuses", "condor-complete"]  # the end state only, no half-way snapshot


async def test_a_completion_whose_answer_is_lost(bench: Bench) -> None:
    bench.standin.faults.add(Fault(path="*/condor-complete/*", drop=True, after=True, count=1))
    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.finish(1)
        await completed(bench, uuid)
        await trio.sleep(0.2)
    entries = [each for each in bench.taskforce(uuid).phase_change_log if each.target_phase == Phase.CONDOR_COMPLETE]
    assert len(entries) == 1


async def test_completion_waits_for_the_stop_that_is_under_way(bench: Bench) -> None:
    bench.standin.faults.add(Fault(path="*/condor-rm/*", status=503, count=20))
    async with bench.tms():
        uuid = await started(bench)
        bench.stop(uuid)
        await completed(bench, uuid)
        await trio.sleep(0.1)
    assert bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE  # not overwritten by a late condor-rm
    posts = bench.posts(uuid)
    first_try = posts.index("condor-rm")
    assert posts[first_try:] == ["condor-rm"] * 21 + ["statuses", "condor-complete"]  # the last statuses wait, too


async def test_a_schedd_that_is_away_delays_a_stop_and_fails_nothing(bench: Bench) -> None:
    losses = 1

    async def lose(called: str, when: Moment) -> None:
        nonlocal losses
        await trio.lowlevel.checkpoint()
        if losses and (called, when) == ("act", "after"):
            losses -= 1
            raise CondorUnreachable("no answer")

    bench.schedd.hook = lose
    async with bench.tms():
        uuid = await started(bench)
        bench.stop(uuid)
        await completed(bench, uuid)
    assert "condor-rm/failed" not in bench.posts(uuid)


async def test_a_removal_that_is_refused_is_told_with_its_error(bench: Bench) -> None:
    async def refuse(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if called == "act":
            raise CondorRefused("permission denied")

    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.hook = refuse
        bench.stop(uuid)
        await until(lambda: "condor-rm/failed" in bench.posts(uuid))
    assert "permission denied" in bench.taskforce(uuid).phase_change_log[-1].context
    assert bench.schedd.queued


@pytest.mark.parametrize("is_the_machines", [False, True])
async def test_a_stop_whose_ledger_entry_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_the_machines: bool
) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        entry = bench.settings.state_dir / "ledger" / f"{uuid}.json"
        await until(lambda: parse(entry.read_bytes()).confirmed_at is not None)  # the last that a start writes
        entry.unlink()
        entry.mkdir()  # what even root cannot read
        if is_the_machines:

            def read_now(_uuid: str) -> Entry | None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            monkeypatch.setattr(ctx.ledger, "read_now", read_now)
        bench.stop(uuid)
        await completed(bench, uuid)
    assert [each for each in bench.posts(uuid) if each != "statuses"] == [
        "condor-submit",
        "condor-rm",
        "condor-complete",
    ]


async def test_a_cluster_id_that_is_somebody_elses_is_not_removed(bench: Bench) -> None:
    async with bench.tms():
        mine, other = await started(bench), await started(bench)
        document = bench.standin.state.taskforce_document(mine)
        other_id = bench.taskforce(other).cluster_id
        bench.standin.state.store.save([("taskforces", document | {"cluster_id": other_id})])
        bench.stop(mine)
        await until(lambda: "condor-rm/failed" in bench.posts(mine))
    assert [cluster.uuid for cluster in bench.schedd.queued] == [mine, other]
    assert "nothing was removed" in bench.taskforce(mine).phase_change_log[-1].context


async def test_a_stop_order_that_fails_is_tried_less_and_less_often_and_holds_up_no_other(bench: Bench) -> None:
    async with bench.tms():
        wrong, healthy, later = [await started(bench) for _ in range(3)]
        began = trio.current_time()
        document = bench.standin.state.taskforce_document(wrong)
        # First in every list of the WMS, however often it failed.
        bench.standin.state.store.save([("taskforces", document | {"cluster_id": 999, "priority": 10_000})])
        bench.stop(wrong)
        await until(lambda: "condor-rm/failed" in bench.posts(wrong))
        bench.stop(healthy)
        await completed(bench, healthy)
        await trio.sleep(1)
        # At 0, 0.02, 0.06, 0.14, … s: one more whenever the time has doubled.
        doublings = math.log2((trio.current_time() - began) / bench.settings.error_wait)
        assert bench.posts(wrong).count("condor-rm/failed") <= 2 + doublings
        bench.stop(later)
        await completed(bench, later)
        # An operator (or the WMS) puts it right: the next look carries it out.
        document = bench.standin.state.taskforce_document(wrong)
        bench.standin.state.store.save([("taskforces", document | {"cluster_id": 1})])
        await completed(bench, wrong)
    assert not bench.schedd.queued


async def test_a_malformed_stop_order_is_told_and_holds_up_no_other(bench: Bench) -> None:
    async with bench.tms():
        bad, healthy = await started(bench), await started(bench)
        document = bench.standin.state.taskforce_document(bad)
        bench.standin.state.store.save([("taskforces", document | {"n_workers": "many", "priority": 10_000})])
        for uuid in (bad, healthy):
            taskforce = bench.standin.state.taskforce_document(uuid)
            bench.standin.state.store.save([("taskforces", taskforce | {"phase": "pending-stopper"})])
        await completed(bench, healthy)
        await until(lambda: "condor-rm/failed" in bench.posts(bad))
        assert [cluster.uuid for cluster in bench.schedd.queued] == [bad]


async def test_a_stop_of_a_cluster_that_nobody_knows_any_more(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
    bench.schedd.clusters.clear()
    for log in bench.settings.job_dir.glob("*.jel"):
        log.unlink()
    for checkpoint in (bench.settings.state_dir / "watch").glob("*"):
        checkpoint.unlink()
    bench.stop(uuid)
    async with bench.tms():
        await completed(bench, uuid)
    assert [each for each in bench.posts(uuid) if each != "statuses"][-2:] == ["condor-rm", "condor-complete"]


async def test_a_stop_of_a_cluster_that_has_ended_while_the_tms_was_down(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
    bench.schedd.finish(1)
    bench.stop(uuid)
    async with bench.tms():
        await completed(bench, uuid)
        await trio.sleep(0.2)
    assert bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE


async def test_a_wms_that_is_away_for_a_while_costs_nothing(bench: Bench) -> None:
    async with bench.tms():
        first = await started(bench)
        bench.standin.faults.add(Fault(drop=True))
        await trio.sleep(0.3)
        bench.schedd.finish(1)
        await trio.sleep(0.3)
        bench.standin.faults.clear()
        await completed(bench, first)
        await started(bench)


async def test_a_taskforce_that_the_wms_does_not_know_is_spoken_of_once(bench: Bench) -> None:
    async with bench.tms() as ctx:
        known = await started(bench)
        ctx.board.expect("TF-ghost", 99, 1)
        ctx.outbox.set_stage("TF-ghost", Stage.OPEN)
        await until(lambda: ctx.outbox.stage("TF-ghost") is Stage.UNKNOWN)
        batches = bench.posts().count("statuses")
        ctx.board.expect("TF-ghost", 99, 5)
        await trio.sleep(0.1)
        assert bench.posts().count("statuses") == batches
        bench.schedd.finish(1)
        await completed(bench, known)


async def test_a_batch_that_is_refused_is_halved_until_the_bad_entry_is_alone(bench: Bench) -> None:
    async with bench.tms() as ctx:
        one, other = await started(bench), await started(bench)
        await until(lambda: not ctx.board.changed())
        await trio.testing.wait_all_tasks_blocked()  # what was under way is over: the two go into one batch
        batches = bench.posts().count("statuses")
        bench.standin.faults.add(Fault(path="*/statuses/*", status=400, count=2))
        for uuid, n_workers in ((one, 11), (other, 12)):
            ctx.board.expect(uuid, bench.taskforce(uuid).cluster_id or 0, n_workers)
        # Both are refused, then one alone is refused and given up, then the other alone is taken.
        await until(
            lambda: (
                {bench.taskforce(uuid).compound_statuses["IDLE"]["null"] for uuid in (one, other)} in ({2, 11}, {2, 12})
            )
        )
        assert bench.posts().count("statuses") == batches + 3


async def test_errors_that_are_gone_go_at_the_wms_too(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.write(1, "008", 0, 'HTChirpEWMSPilotError: "task failed (exit code 1): boom"')
        await until(lambda: bool(bench.taskforce(uuid).top_task_errors))
    async with bench.tms():  # what the WMS shows is known after a restart, too
        bench.schedd.write(1, "001", 0, "Job executing on host: <127.0.0.1:9618>")
        await until(lambda: not bench.taskforce(uuid).top_task_errors)
        assert bench.taskforce(uuid).compound_statuses == {"RUNNING": {"null": 1}, "IDLE": {"null": 1}}


async def test_queue_tokens_are_hidden_while_their_taskforce_lives(bench: Bench) -> None:
    def is_hidden() -> bool:
        for number in range(300):  # what nobody holds is hidden until some others came and went
            Secret(f"another-token-{number}")
        gc.collect()  # an order's errors and their tracebacks hold each other
        return all(MASK in redact(f"amqp://user:{token}@host") for token in tokens)

    uuid = bench.order()
    # No part of them may be a secret of another test, whose mask would be taken for theirs.
    store, tokens = bench.standin.state.store, ["Zq8841xVb-1", "Zq8841xVb-2"]
    for profile, token in zip(store.all("mqprofiles"), tokens, strict=True):
        store.save([("mqprofiles", profile | {"auth_token": token})])
    async with bench.tms():
        await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
        await trio.sleep(0.2)  # the order itself is gone by now
        assert is_hidden()
        bench.schedd.finish(1)
        await completed(bench, uuid)
        await until(lambda: not is_hidden())


async def test_nothing_is_sent_while_nothing_changes(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
        await trio.sleep(0.2)
        before = len(bench.posts(uuid))
        await trio.sleep(0.3)
        assert len(bench.posts(uuid)) == before


async def test_a_shutdown_leaves_clusters_alone(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
    assert [cluster.uuid for cluster in bench.schedd.queued] == [uuid]
    assert "act" not in bench.schedd.calls


async def test_an_abort_behind_a_confirmation_whose_answer_is_lost_is_a_stop(bench: Bench) -> None:
    uuid = bench.order()
    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True, after=True, delay=0.2, count=1))
    async with bench.tms():
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT)
        bench.stop(uuid)  # the repeated confirmation meets 404, and the WMS names our cluster
        await completed(bench, uuid)
    posts = [each for each in bench.posts(uuid) if each != "statuses"]
    assert posts == ["condor-submit", "condor-submit", "condor-rm", "condor-complete"]
    assert bench.schedd.calls.count("act") == 1
    assert not bench.schedd.queued


async def test_a_stop_order_that_meets_a_withdrawn_start(bench: Bench) -> None:
    """A confirmation that was under way for very long: it arrives after the start was withdrawn because of its 404."""
    uuid = bench.order()

    async def abort(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (called, when) == ("submit", "after"):
            bench.stop(uuid)

    bench.schedd.hook = abort
    async with bench.tms():
        await until(lambda: bench.posts(uuid) == ["condor-submit"] and not bench.schedd.queued)
        late = {"cluster_id": 1, "n_workers": 2, "phase": str(Phase.PENDING_STOPPER)}
        bench.standin.state.store.save([("taskforces", bench.standin.state.taskforce_document(uuid) | late)])
        await completed(bench, uuid)
        await trio.sleep(0.2)
    posts = bench.posts(uuid)
    assert posts.count("condor-rm") == posts.count("condor-complete") == 1
    assert posts[-1] == "condor-complete"


@pytest.mark.parametrize("entry", ["is there", "is lost", "is damaged"])
async def test_a_crash_between_removal_and_its_confirmation(bench: Bench, entry: str) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        if entry == "is lost":  # or the cluster is one of today's tool
            await ctx.ledger.forget(uuid)
        elif entry == "is damaged":
            (bench.settings.state_dir / "ledger" / f"{uuid}.json").write_text("{")
        bench.standin.faults.add(Fault(path="*/condor-rm/*", drop=True))
        bench.stop(uuid)
        await until(lambda: "condor-rm" in bench.posts(uuid))
    assert not bench.schedd.queued
    bench.standin.faults.clear()
    bench.standin.faults.add(Fault(path="*/pending-stopper/*", status=503))  # the end is known before the order
    before = len(bench.posts(uuid))
    async with bench.tms() as ctx:
        await completed(bench, uuid)
        await until(lambda: not ctx.outbox.counts())
        noted = await ctx.ledger.read(uuid)
    assert bench.posts(uuid)[before:] == ["condor-rm", "statuses", "condor-complete"]
    assert noted is not None
    assert not noted.has_open_stop
    assert not noted.is_unsettled


async def test_what_is_no_uuid_becomes_no_file(bench: Bench) -> None:
    async with bench.tms():
        uuid = await started(bench)
        bench.stop(uuid)
        order = bench.standin.state.taskforce_document(uuid) | {"taskforce_uuid": "../../escaped"}
        for path in ("*/pending-stopper/taskforces", "*/taskforces/*escaped*"):
            bench.standin.faults.add(Fault(path=path, method="GET", count=1, answer=json.dumps(order)))
        with capture_logs() as logs:
            await completed(bench, uuid)
    (refused,) = [each for each in logs if each["event"] == "stop order failed"]
    assert "taskforce_uuid: '../../escaped' is not letters" in refused["reason"]
    assert not list(bench.settings.job_dir.rglob("escaped*"))


async def test_an_interrupted_stop_that_cannot_go_on_holds_up_no_other(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid, other = await started(bench), await started(bench)
        await ctx.ledger.update(uuid, stop_began_at=1.0)  # as before a kill -9: nothing is removed yet
    bench.stop(uuid)
    away = True

    async def lose(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if away and called == "act":
            raise CondorUnreachable("no answer")

    bench.schedd.hook = lose
    async with bench.tms() as ctx:
        bench.schedd.write(2, "001", 0, "Job executing on host: <127.0.0.1:9618>")
        await until(lambda: "RUNNING" in bench.taskforce(other).compound_statuses)
        assert ctx.outbox.counts() == {"open": 1, "stopping": 1}
        away = False
        await completed(bench, uuid)
    assert [cluster.uuid for cluster in bench.schedd.queued] == [other]


async def test_a_stop_that_was_taken_back_while_the_tms_was_down(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        await ctx.ledger.update(uuid, stop_began_at=1.0)
    async with bench.tms():
        bench.schedd.write(1, "001", 0, "Job executing on host: <127.0.0.1:9618>")
        await until(lambda: "RUNNING" in bench.taskforce(uuid).compound_statuses)
    assert bench.schedd.queued
    assert "condor-rm" not in bench.posts(uuid)


async def test_a_confirmed_stop_that_a_crash_kept_from_the_ledger_is_noted_by_the_next_run(bench: Bench) -> None:
    bench.standin.faults.add(Fault(path="*/condor-complete/*", status=503))
    async with bench.tms() as ctx:
        uuid = await started(bench)
        bench.stop(uuid)
        await until(lambda: "condor-complete" in bench.posts(uuid))
    await ctx.ledger.update(uuid, stopped_at=None)  # as after a kill -9 before the note
    async with bench.tms() as ctx:
        await until(lambda: (entry := ctx.ledger.read_now(uuid)) is not None and entry.stopped_at is not None)
        bench.standin.faults.clear()
        await completed(bench, uuid)
    assert bench.posts(uuid).count("condor-rm") == 1


async def test_a_stop_while_the_log_is_still_read_concludes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.tms():
        uuid = await started(bench)
    for checkpoint in (bench.settings.state_dir / "watch").glob("*"):
        checkpoint.unlink()
    bench.schedd.finish(1)
    bench.stop(uuid)
    may_read = threading.Event()

    def read_late(path: Path, position: Position) -> Piece:
        assert may_read.wait(60)
        return read_on(path, position)

    monkeypatch.setattr("ewms.tms.watch.read_on", read_late)
    before = len(bench.posts(uuid))
    async with bench.tms():
        try:
            await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_RM)
            await trio.sleep(0.5)  # time to conclude that nobody knows the cluster
            assert bench.posts(uuid)[before:] == ["condor-rm"]
        finally:
            may_read.set()
        await completed(bench, uuid)
    assert bench.posts(uuid)[before:] == ["condor-rm", "statuses", "condor-complete"]
    assert bench.taskforce(uuid).compound_statuses == {"COMPLETED": {"null": 2}}


async def test_an_end_that_the_wms_does_not_take_is_told_again(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        bench.standin.faults.add(Fault(path="*/condor-complete/*", status=400, count=2))
        bench.schedd.finish(1)
        await until(lambda: ctx.outbox.counts() == {"refused": 1})
        await completed(bench, uuid)
        await until(lambda: not ctx.outbox.counts())
        entry = await ctx.ledger.read(uuid)
    assert bench.posts(uuid).count("condor-complete") == 3
    assert entry is not None
    assert entry.completed_at is not None
    assert bench.taskforce(uuid).phase_change_log[-1].source_event_time == entry.ended_at


async def test_a_refused_end_that_somebody_put_right_is_not_told_again(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        bench.standin.faults.add(Fault(path="*/condor-complete/*", status=400, count=1))
        bench.schedd.finish(1)
        await until(lambda: ctx.outbox.counts() == {"refused": 1})
        document = bench.standin.state.taskforce_document(uuid)
        bench.standin.state.store.save([("taskforces", document | {"phase": str(Phase.CONDOR_COMPLETE)})])
        await until(lambda: not ctx.outbox.counts())
    assert bench.posts(uuid).count("condor-complete") == 1


async def test_an_end_that_a_crash_kept_from_the_ledger_is_noted_by_the_next_run(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid, living = await started(bench), await started(bench)
        bench.schedd.finish(1)
        await completed(bench, uuid)
        await until(lambda: ctx.outbox.counts() == {"open": 1})
        noted = await ctx.ledger.read(uuid)
    assert noted is not None
    await ctx.ledger.update(uuid, ended_at=None, completed_at=None)  # as after a kill -9 before the note
    before = bench.posts(uuid)
    async with bench.tms() as ctx:
        with trio.fail_after(30):
            while (entry := ctx.ledger.read_now(uuid)) is None or entry.completed_at is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        other = await ctx.ledger.read(living)
    assert entry.ended_at == noted.ended_at
    assert other is not None
    assert other.completed_at is None
    assert [each for each in bench.posts(uuid) if each != "statuses"] == [each for each in before if each != "statuses"]
