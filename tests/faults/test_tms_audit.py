"""What the schedd says where the log is silent."""

import pytest
import trio
from tms_bench import Bench, until

from ewms.testing.fakeschedd import Moment
from ewms.testing.wms import Fault
from ewms.tms.condor.base import CondorUnreachable
from ewms.tms.inside import Inside
from ewms.wms.models import Phase

FAILED_FACTORIES = b"\newms_tms_failed_factories %d.0\n"


async def started(bench: Bench) -> str:
    uuid = bench.order()
    await until(lambda: bool(bench.taskforce(uuid).compound_statuses))
    return uuid


async def completed(bench: Bench, uuid: str) -> None:
    await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)


async def test_a_cluster_whose_end_is_not_in_the_log(bench: Bench) -> None:
    async with bench.tms():
        uuid, other = await started(bench), await started(bench)
        bench.schedd.clusters[1].is_queued = False
        await completed(bench, uuid)
        await trio.sleep(0.3)
        assert bench.taskforce(other).phase == Phase.CONDOR_SUBMIT
    assert bench.posts(uuid).count("condor-complete") == 1


async def test_a_schedd_without_an_answer_ends_nothing(bench: Bench) -> None:
    async def lose(called: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if called == "query":
            raise CondorUnreachable("no answer")

    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.hook = lose
        queries = bench.schedd.calls.count("query")
        await until(lambda: bench.schedd.calls.count("query") > queries + 3)
        assert bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT


async def test_a_factory_that_failed_is_removed_when_no_job_is_left(bench: Bench) -> None:
    async with bench.tms() as ctx:
        uuid = await started(bench)
        Inside(metrics=ctx.metrics).show(ctx)
        assert FAILED_FACTORIES % 0 in ctx.metrics.text()
        bench.schedd.write(1, "037", -1, "Job Materialization Paused\n\tno such file\n\tPauseCode 1")
        await until(lambda: FAILED_FACTORIES % 1 in ctx.metrics.text())
        await trio.sleep(0.4)
        assert bench.schedd.queued  # it still has jobs
        bench.schedd.clusters[1].n_present = 0
        await completed(bench, uuid)
        assert FAILED_FACTORIES % 0 in ctx.metrics.text()
    assert not bench.schedd.queued
    assert "its job factory failed" in (bench.schedd.clusters[1].log_path).read_text()


async def test_a_factory_that_failed_is_told_at_once_and_only_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.tms():
        await started(bench)
        bench.schedd.write(1, "037", -1, "Job Materialization Paused\n\tno such file\n\tPauseCode 1")
        await until(lambda: "no further workers" in caplog.text)
        bench.schedd.write(1, "001", 0, "Job executing on host: <127.0.0.1:9618>")
        await trio.sleep(0.3)
    (told,) = [record for record in caplog.records if record.msg.startswith("no further workers")]
    assert (told.levelname, told.__dict__["reason"]) == ("WARNING", "no such file")


async def test_a_factory_that_an_operator_paused_is_left_to_the_operator(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.tms():
        uuid = await started(bench)
        paused = "Job Materialization Paused\n\tvia condor_hold (by user ops)\n\tPauseCode 1\n\tHoldCode 1"
        bench.schedd.write(1, "037", -1, paused)
        bench.schedd.clusters[1].n_present = 0
        audits = bench.schedd.calls.count("query")
        await until(lambda: bench.schedd.calls.count("query") > audits + 4)
        assert bench.schedd.queued
        assert bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT
    assert "no further workers" not in caplog.text


async def test_an_end_that_the_wms_refuses_does_not_end_the_tms(bench: Bench) -> None:
    bench.standin.faults.add(Fault(path="*/condor-complete/*", status=400, count=1))
    async with bench.tms():
        uuid = await started(bench)
        bench.schedd.clusters[1].is_queued = False  # before the log was read: nobody else knows that it was here
        await until(lambda: bench.posts(uuid).count("condor-complete") == 1)
        await started(bench)
