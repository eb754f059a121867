"""The whole service: `main` and the `ewms tms` process, against the stand-in and the embedded schedd."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from tms_bench import SCHEDD, Bench, until

from ewms.testing.fakeschedd import FakeSchedd
from ewms.testing.schedd import EmbeddedSchedd, open_embedded_schedd
from ewms.testing.wms import open_standin
from ewms.tms.condor.schedd import open_schedd
from ewms.tms.errors import SettingWrong, SetupError
from ewms.tms.service import main
from ewms.tms.settings import read
from ewms.wms.models import Phase


@attrs.frozen
class Ground:
    """A stand-in with tokens, an embedded schedd whose workers sleep, and the TMS's environment for both."""

    bench: Bench
    embedded: EmbeddedSchedd
    environ: dict[str, str]

    async def in_queue(self) -> list[int]:
        """The clusters in the queue."""
        async with open_schedd(self.embedded.helper_command) as schedd:
            ads = await schedd.query("true", ["ClusterId", "ProcId"])
        return sorted({int(str(ad["ClusterId"])) for ad in ads})


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    async with (
        open_standin(locations={"here": SCHEDD}) as standin,
        open_embedded_schedd(tmp_path / "schedd", entrypoint=["/bin/sleep", "1000"], name=SCHEDD) as embedded,
    ):
        environ = {
            "EWMS_ADDRESS": standin.address,
            "EWMS_TOKEN_URL": standin.token_url,
            "EWMS_CLIENT_ID": standin.client_id,
            "EWMS_CLIENT_SECRET": standin.client_secret.reveal(),
            "JOB_EVENT_LOG_DIR": str(jobs),
            "TMS_SCHEDD_HELPER": " ".join(embedded.helper_command),
            "TMS_BASE_REQUIREMENTS": "true",
            "TMS_OUTER_LOOP_WAIT": "0.05",
            "TMS_WATCHER_INTERVAL": "0.05",
            "TMS_SETTLE_TIME": "0.1",
            "TMS_JOB_MAX_VACATE_TIME": "1",
        }
        yield Ground(Bench(standin, FakeSchedd(), read(environ)), embedded, environ)


@asynccontextmanager
async def process(
    ground: Ground, log: Path, *, program: Sequence[str] = (sys.executable, "-m", "ewms", "tms"), **settings: str
) -> AsyncIterator[trio.Process]:
    """The `ewms tms` process; killed when the context ends."""
    environment = {"PATH": os.defpath, **ground.environ, **settings}
    with log.open("ab") as output:
        running = await trio.lowlevel.open_process(
            program,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield running
    finally:
        running.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await running.wait()


async def test_start_run_stop_complete(ground: Ground) -> None:
    bench = ground.bench
    uuid = bench.order(n_workers=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(main, read(ground.environ)))
        await until(lambda: bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
        assert await ground.in_queue() == [bench.taskforce(uuid).cluster_id]
        bench.stop(uuid)
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
        nursery.cancel_scope.cancel()
    assert await ground.in_queue() == []
    assert [each for each in bench.posts(uuid) if each != "statuses"] == [
        "condor-submit",
        "condor-rm",
        "condor-complete",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_a_clean_end_that_leaves_clusters_alone(
    ground: Ground, tmp_path: Path, number: signal.Signals
) -> None:
    uuid = ground.bench.order()
    async with process(ground, tmp_path / "tms.log") as running:
        await until(lambda: bool(ground.bench.taskforce(uuid).compound_statuses))
        running.send_signal(number)
        with trio.fail_after(60):
            assert await running.wait() == 0
    assert await ground.in_queue() == [ground.bench.taskforce(uuid).cluster_id]
    text = (tmp_path / "tms.log").read_text()
    assert "clusters are left alone" in text
    assert "Traceback" not in text
    assert ground.environ["EWMS_CLIENT_SECRET"] not in text


async def test_kill_dash_nine_and_a_new_process(ground: Ground, tmp_path: Path) -> None:
    uuid = ground.bench.order()
    async with process(ground, tmp_path / "tms.log") as running:
        await until(lambda: bool(ground.bench.taskforce(uuid).compound_statuses))
        running.kill()
        await running.wait()
    other = ground.bench.order()
    async with process(ground, tmp_path / "tms.log"):
        await until(lambda: ground.bench.taskforce(other).phase == Phase.CONDOR_SUBMIT)
        ground.bench.stop(uuid)
        await until(lambda: ground.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
    assert await ground.in_queue() == [ground.bench.taskforce(other).cluster_id]


async def test_each_line_about_a_start_or_a_stop_names_its_workflow_in_json_logs(
    ground: Ground, tmp_path: Path
) -> None:
    uuid = ground.bench.order()
    async with process(ground, tmp_path / "tms.log", TMS_LOG_FORMAT="json"):
        await until(lambda: ground.bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT)
        ground.bench.stop(uuid)
        await until(lambda: ground.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
    lines = {line["event"]: line for line in map(json.loads, (tmp_path / "tms.log").read_text().splitlines())}
    taskforce = ground.bench.taskforce(uuid)
    for event in ("cluster submitted", "taskforce confirmed", "cluster removed", "stop confirmed"):
        line = lines[event]
        assert (line["taskforce"], line["cluster"]) == (uuid, taskforce.cluster_id)
        assert line["workflow"] == taskforce.workflow_id
    assert "workflow" not in lines["TMS running"]


async def test_a_bad_base_requirement_ends_the_start_with_one_clear_line(ground: Ground, tmp_path: Path) -> None:
    async with process(ground, tmp_path / "tms.log", TMS_BASE_REQUIREMENTS="(((") as running:
        with trio.fail_after(60):
            assert await running.wait() == 2
    assert "Error: TMS_BASE_REQUIREMENTS: HTCondor cannot parse it" in (tmp_path / "tms.log").read_text()


async def test_a_name_is_needed_where_htcondor_has_none(ground: Ground, tmp_path: Path) -> None:
    async with open_embedded_schedd(tmp_path / "nameless", entrypoint=["/bin/true"], name="") as nameless:
        helper = " ".join(nameless.helper_command)
        async with process(ground, tmp_path / "tms.log", TMS_SCHEDD_HELPER=helper) as running:
            with trio.fail_after(60):
                assert await running.wait() == 2
    assert "Error: TMS_SCHEDD_NAME: is needed here" in (tmp_path / "tms.log").read_text()


async def test_bad_settings_end_the_start_with_exit_status_2(ground: Ground, tmp_path: Path) -> None:
    async with process(ground, tmp_path / "tms.log", TMS_MAX_IDLE="many", EWMS_ADDRESS="") as running:
        with trio.fail_after(60):
            assert await running.wait() == 2
    lines = (tmp_path / "tms.log").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["EWMS_ADDRESS", "TMS_MAX_IDLE"]


async def test_dry_run_prints_the_description_and_touches_nothing(ground: Ground, tmp_path: Path) -> None:
    uuid = ground.bench.order()
    log = tmp_path / "tms.log"
    async with process(ground, log, DRYRUN="true") as running:
        await until(lambda: "queue 2" in log.read_text())
        with trio.move_on_after(1):
            raise AssertionError(f"it ended with {await running.wait()}")
    assert f'+EWMSTaskforceUUID = "{uuid}"' in log.read_text()
    assert not ground.bench.posts(uuid)
    assert await ground.in_queue() == []
    assert not list((tmp_path / "jobs").iterdir())


async def test_queries_that_hang_hold_up_no_stop_and_no_report(ground: Ground, tmp_path: Path) -> None:
    """The helper that hangs is killed after the deadline; removals have one of their own."""
    bench, flag, log = ground.bench, tmp_path / "hang", tmp_path / "tms.log"
    helper = f"{sys.executable} {Path(__file__).with_name('hanging_helper.py')} {flag}"
    command = f"{helper} {ground.environ['TMS_SCHEDD_HELPER']}"
    uuid = bench.order()
    async with process(ground, log, TMS_SCHEDD_HELPER=command, TMS_SCHEDD_TIMEOUT="1.5"):
        await until(lambda: bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
        flag.touch()
        waiting = bench.order()
        await until(partial(_says, log, "the helper was killed"))
        bench.stop(uuid)
        await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
        assert bench.taskforce(waiting).phase == Phase.PENDING_STARTER
        flag.unlink()
        await until(lambda: bench.taskforce(waiting).phase == Phase.CONDOR_SUBMIT)
    assert "Traceback" not in log.read_text()


async def test_a_hangup_reads_the_excluded_sites_again(ground: Ground, tmp_path: Path) -> None:
    sites, log = tmp_path / "sites.txt", tmp_path / "tms.log"
    sites.write_text("GLIDEIN_Site = First\n")
    first = ground.bench.order()
    async with process(ground, log, TMS_EXCLUDED_SITES_FILE=str(sites)) as running:
        await until(lambda: ground.bench.taskforce(first).phase == Phase.CONDOR_SUBMIT)
        for content, said in (("nonsense\n", "line 1: 'nonsense'"), ("OSG_SITE_NAME = Second\n", "read again")):
            sites.write_text(content)
            running.send_signal(signal.SIGHUP)
            await until(partial(_says, log, said))
        second = ground.bench.order()
        await until(lambda: ground.bench.taskforce(second).phase == Phase.CONDOR_SUBMIT)
    requirements = [str(ground.bench.taskforce(uuid).submit_dict["requirements"]) for uuid in (first, second)]
    assert ['GLIDEIN_Site =!= "First"' in text for text in requirements] == [True, False]
    assert ['OSG_SITE_NAME =!= "Second"' in text for text in requirements] == [False, True]


async def test_what_the_operator_gives_all_pilots_arrives_and_what_is_dropped_is_said(
    ground: Ground, tmp_path: Path
) -> None:
    uuid, log = ground.bench.order(), tmp_path / "tms.log"
    given = "_EWMS_PILOT_CONTAINER_PLATFORM=process LD_PRELOAD=evil.so"
    async with process(ground, log, TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT=given):
        await until(lambda: ground.bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT)
    (envfile,) = ground.bench.settings.job_dir.glob(f"*{uuid}/ewms_htcondor_envfile.sh")
    assert "export _EWMS_PILOT_CONTAINER_PLATFORM=process\n" in envfile.read_text()
    assert "LD_PRELOAD" not in envfile.read_text()
    (said,) = [line for line in log.read_text().splitlines() if "not passed on" in line]
    assert "LD_PRELOAD" in said
    assert "evil" not in said


def _says(log: Path, text: str) -> bool:
    return text in log.read_text()


async def test_a_file_of_excluded_sites_that_is_not_there_ends_the_start(ground: Ground, tmp_path: Path) -> None:
    async with process(ground, tmp_path / "tms.log", TMS_EXCLUDED_SITES_FILE=str(tmp_path / "missing")) as running:
        with trio.fail_after(60):
            assert await running.wait() == 1
    text = (tmp_path / "tms.log").read_text()
    assert text.splitlines()[-1].startswith("Error: TMS_EXCLUDED_SITES_FILE:")
    assert "No such file" in text


async def test_a_wrong_line_in_it_is_told_by_the_exit_status(ground: Ground, tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    sites.write_text("nonsense\n")
    async with process(ground, tmp_path / "tms.log", TMS_EXCLUDED_SITES_FILE=str(sites)) as running:
        with trio.fail_after(60):
            assert await running.wait() == 2
    assert (tmp_path / "tms.log").read_text().splitlines()[-1].startswith("Error: TMS_EXCLUDED_SITES_FILE:")


async def test_root_is_told_before_any_order_has_failed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    on_a_real_schedd = {name: text for name, text in ground.environ.items() if name != "TMS_SCHEDD_HELPER"}
    with pytest.RaisesGroup(pytest.RaisesExc(SettingWrong, match="no jobs of root"), flatten_subgroups=True):
        await main(read(on_a_real_schedd))


async def test_a_job_directory_that_cannot_be_used(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = read(ground.environ | {"JOB_EVENT_LOG_DIR": str(tmp_path / "file")})
    with pytest.RaisesGroup(SetupError, flatten_subgroups=True):
        await main(settings)
