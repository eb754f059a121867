"""A bad network between the pilot and HTCondor's chirp server: no task waits for it, and the newest state arrives."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from test_pilot_program import Site, pilot_command

from ewms.contract import ChirpAttribute, PilotStatus
from ewms.pilot import chirp
from ewms.pilot.chirp import ChirpClient
from ewms.pilot.errors import ExitStatus
from ewms.pilot.report import Report, sending
from ewms.testing.proxy import Proxy, open_proxy
from ewms.testing.schedd import chirp as chirp_server

PATIENCE = 60


@attrs.define
class Job:
    """What a chirp server speaks to (`ewms.testing.schedd.chirp.ChirpJob`)."""

    heard: list[str] = attrs.field(factory=list)
    wants_updates: bool = True
    vacate_reason: str = "UNDEFINED"

    def ulog(self, text: str) -> None:
        self.heard.append(text)

    def set_attribute(self, name: str, text: str) -> None:
        self.heard.append(f"{name}: {text}")

    def attribute(self, name: str) -> str:
        return self.vacate_reason if name == "VacateReason" else "UNDEFINED"


@attrs.frozen
class Worker:
    """A worker's way to chirp."""

    config: Path
    proxy: Proxy
    job: Job

    async def until_it_hears(self, name: ChirpAttribute, value: str) -> None:
        with trio.fail_after(PATIENCE):
            while f'{name}: "{value}"' not in self.job.heard:  # noqa: ASYNC110  no event of ours
                await trio.sleep(0.02)


@asynccontextmanager
async def working(directory: Path) -> AsyncIterator[Worker]:
    """The chirp server that HTCondor would run, behind a proxy."""
    async with trio.open_nursery() as nursery:
        job = Job()
        host, port, cookie = (await nursery.start(chirp_server.serve, job)).split()
        async with open_proxy(host, int(port)) as proxy:
            config = directory / "chirp.config"
            config.write_text(f"{proxy.host} {proxy.port} {cookie}\n")
            yield Worker(config, proxy, job)
        nursery.cancel_scope.cancel()


def harm(proxy: Proxy, how: str) -> None:
    match how:
        case "delay":
            proxy.delay = 0.05
        case "loss":
            proxy.loss = 0.5
        case "refused":
            proxy.refusing = True
            proxy.drop()
        case _:
            getattr(proxy, how)()


def heal(proxy: Proxy) -> None:
    proxy.resume()
    proxy.refusing, proxy.delay, proxy.loss = False, 0.0, 0.0


@pytest.mark.parametrize("how", ["delay", "loss", "stall", "sever", "reset", "drop", "refused"])
async def test_the_newest_state_arrives_when_the_network_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(chirp, "TIMEOUT_S", 0.2)
    async with working(tmp_path) as worker:
        report, client = Report(interval=0.1), ChirpClient(worker.config, to_log=True)
        async with sending(report, client):
            report.status(PilotStatus.STARTED)
            await worker.until_it_hears(ChirpAttribute.STATUS, "Started")
            harm(worker.proxy, how)
            for status in (PilotStatus.TASKING, PilotStatus.PENDING_REMAINING_TASKS):
                report.status(status)
                await trio.sleep(0.3)
            report.counts(succeeded=5, failed=0, parked=0)
            heal(worker.proxy)
            await worker.until_it_hears(ChirpAttribute.STATUS, "PendingRemainingTasks")
            await worker.until_it_hears(ChirpAttribute.TASKS_TOTAL, "5")
        client.close()


async def test_no_task_waits_for_a_chirp_server_that_swallows_everything(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with working(tmp_path) as worker:
        worker.proxy.sever()
        events = [f"event {number}" for number in range(5)]
        await site.put(*events)
        environ = site.environ(HTCHIRP="true", HTCHIRP_DEST="JOB_EVENT_LOG", TIMEOUT_QUEUE_INCOMING=3)
        environ["_CONDOR_CHIRP_CONFIG"] = str(worker.config)
        with trio.fail_after(PATIENCE):
            ended = await trio.run_process(pilot_command(), env=environ, capture_stderr=True, check=False)
        assert ended.returncode == ExitStatus.OK
        assert sorted(await site.outputs()) == events
        assert worker.job.heard == []
        assert worker.proxy.connections


async def test_a_signal_that_came_before_the_pilot_stops_it_all_the_same(tmp_path: Path) -> None:
    """Apptainer loses it while it starts the container: no SIGTERM is sent here, only the job's ad says so."""
    site = Site(tmp_path)
    await site.put("x")
    async with working(tmp_path) as worker:
        worker.job.vacate_reason = '"Claim deactivated"'
        environ = site.environ(HTCHIRP="true", TIMEOUT_QUEUE_INCOMING=600, STOP_GRACE=0.3, **site.clinging())
        environ["_CONDOR_CHIRP_CONFIG"] = str(worker.config)
        with trio.fail_after(PATIENCE):
            ended = await trio.run_process(pilot_command(), env=environ, capture_stderr=True, check=False)
    assert ended.returncode == ExitStatus.STOPPED
    assert any("STOPPED: a signal asked for it" in line for line in worker.job.heard)
    assert site.processes() == []
    assert await site.left() == ["x"]


def said(job: Job, name: ChirpAttribute) -> list[str]:
    """All values of an attribute, in their order."""
    return [text.partition(": ")[2].strip('"') for text in job.heard if text.startswith(f"{name}: ")]


async def test_a_life_of_a_pilot_is_told_in_its_order_with_a_summary(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.put("good", "bad")
    settings = {
        "TASK_ARGS": "sh -c 'cp {{INFILE}} {{OUTFILE}}; grep -q good {{INFILE}}'",
        "INIT_IMAGE": "unused",
        "INIT_ARGS": "true",
        "MAX_FAILURES": 1,
        "STOP_LISTENING_ON_TASK_ERROR": "no",
        "TIMEOUT_QUEUE_INCOMING": 2,
    }
    async with working(tmp_path) as worker:
        environ = site.environ(HTCHIRP="true", HTCHIRP_DEST="JOB_EVENT_LOG", **settings)
        environ["_CONDOR_CHIRP_CONFIG"] = str(worker.config)
        with trio.fail_after(PATIENCE):
            ended = await trio.run_process(pilot_command(), env=environ, capture_stdout=True, check=False)
    assert ended.returncode == ExitStatus.TASKS_FAILED
    assert said(worker.job, ChirpAttribute.STATUS) == [
        *("Started", "RunningInitCommand", "AwaitingFirstMessage", "Tasking", "Done"),
    ]
    assert said(worker.job, ChirpAttribute.EVENTS_PARKED)[-1] == "1"
    # One failed task hides nothing of what the others used.
    (summary,) = said(worker.job, ChirpAttribute.SUMMARY)
    assert summary.startswith("TASKS_FAILED: no event came for the timeout; wall_s p50")
    assert b"wall" in ended.stdout


async def test_a_pilot_whose_task_was_ended_by_a_signal_says_so_last(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.put("payload")
    async with working(tmp_path) as worker:
        environ = site.environ(HTCHIRP="true", HTCHIRP_DEST="JOB_EVENT_LOG", STOP_GRACE=0.2, **site.clinging())
        environ["_CONDOR_CHIRP_CONFIG"] = str(worker.config)
        pilot = await trio.lowlevel.open_process(pilot_command(), env=environ, stderr=subprocess.DEVNULL)
        await site.until_a_task_runs()
        pilot.terminate()
        with trio.fail_after(PATIENCE):
            assert await pilot.wait() == ExitStatus.STOPPED
    assert said(worker.job, ChirpAttribute.ERROR) == [
        "the pilot was stopped by a signal; unfinished tasks were handed back"
    ]
    assert said(worker.job, ChirpAttribute.STATUS)[-1] == "Done"
    assert said(worker.job, ChirpAttribute.SUMMARY) == ["STOPPED: a signal asked for it"]
    assert await site.left() == ["payload"]
