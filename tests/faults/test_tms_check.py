"""`ewms check tms`: every fault is found, named, and answered with what to do about it."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from tms_bench import SCHEDD

from ewms.testing.fakeschedd import FakeSchedd, Moment
from ewms.testing.schedd import open_embedded_schedd
from ewms.testing.wms import Fault, Standin, open_standin
from ewms.tms.check import Finding, check_all, check_history, check_names, check_user, line, summary
from ewms.tms.condor.base import CondorRefused
from ewms.tms.lock import hold_lock
from ewms.tms.settings import read

ROWS = [
    "settings",
    "user",
    "directory",
    "one TMS",
    "disk space",
    "clock",
    "requirements",
    "schedd",
    "history",
    "token",
    "WMS",
]


@attrs.frozen
class Ground:
    standin: Standin
    environ: dict[str, str]

    async def check(self, **settings: str) -> dict[str, Finding]:
        """The findings by their rows; each was told as it was made."""
        told: list[Finding] = []
        found = await check_all(read(self.environ | settings), told.append)
        assert told == found
        return {finding.what: finding for finding in found}


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    (tmp_path / "jobs").mkdir()
    async with (
        open_standin(locations={"here": SCHEDD}) as standin,
        open_embedded_schedd(tmp_path / "schedd", name=SCHEDD) as embedded,
    ):
        environ = {
            "EWMS_ADDRESS": standin.address,
            "EWMS_TOKEN_URL": standin.token_url,
            "EWMS_CLIENT_ID": standin.client_id,
            "EWMS_CLIENT_SECRET": standin.client_secret.reveal(),
            "JOB_EVENT_LOG_DIR": str(tmp_path / "jobs"),
            "TMS_SCHEDD_HELPER": " ".join(embedded.helper_command),
        }
        yield Ground(standin, environ)


async def test_all_is_well_and_nothing_is_changed(ground: Ground, tmp_path: Path) -> None:
    found = await ground.check()
    assert list(found) == ROWS
    assert not [finding for finding in found.values() if finding.is_fatal]
    assert SCHEDD in found["schedd"].seen
    assert "no taskforce waits" in found["WMS"].seen
    assert not list((tmp_path / "jobs").iterdir())
    assert {method for method, path in ground.standin.called("/v1")} == {"GET"}


FAULTS: list[tuple[dict[str, str], Fault | None, dict[str, str]]] = [
    # settings, what the WMS does, row → what it says
    ({"EWMS_CLIENT_SECRET": "wrong-secret"}, None, {"token": "invalid_client", "WMS": "there is no token"}),
    ({"EWMS_TOKEN_URL": "http://127.0.0.1:1/realm"}, None, {"token": "connect", "WMS": "there is no token"}),
    ({}, Fault(path="/auth/*", status=503), {"token": "not an OpenID discovery document", "WMS": "no token"}),
    ({}, Fault(path="*/token", status=500), {"token": "gave no token (status 500)", "WMS": "no token"}),
    ({"EWMS_ADDRESS": "http://127.0.0.1:1"}, None, {"WMS": "connect"}),
    ({}, Fault(path="/v1/*", status=401), {"WMS": "does not accept our token"}),
    ({}, Fault(path="/v1/*", status=403), {"WMS": "403"}),
    ({}, Fault(path="/v1/*", status=503), {"WMS": "503"}),
    ({"TMS_SCHEDD_HELPER": "/nonexistent"}, None, {"schedd": "did not start"}),
    ({"TMS_SCHEDD_HELPER": "/bin/false"}, None, {"schedd": "ended (exit status 1)"}),
    (
        {"TMS_BASE_REQUIREMENTS": "((("},
        None,
        {
            "requirements": "(((",
        },
    ),
    ({"TMS_EXCLUDED_SITES_FILE": "/nonexistent"}, None, {"excluded sites": "No such file"}),
    ({"JOB_EVENT_LOG_DIR": "/dev/null"}, None, {"directory": "/dev/null"}),
    ({"JOB_EVENT_LOG_DIR": "/proc/jobs"}, None, {"directory": "/proc", "disk space": "0.0 GiB free"}),
]


@pytest.mark.parametrize(("settings", "fault", "failed"), FAULTS)
async def test_what_fails_is_named_and_nothing_else(
    ground: Ground, settings: dict[str, str], fault: Fault | None, failed: dict[str, str]
) -> None:
    if fault is not None:
        ground.standin.faults.add(fault)
    found = await ground.check(**settings)
    assert {finding.what for finding in found.values() if finding.is_fatal} == set(failed)
    for row, text in failed.items():
        assert text in found[row].seen
        assert found[row].advice
        assert "wrong-secret" not in line(found[row])
    assert summary(list(found.values())).startswith("The TMS would not work here: ")


def test_a_misspelt_setting_is_named_with_the_one_that_may_be_meant() -> None:
    environ = {"TMS_METRICS_PROT": "1", "TMS_FOO": "", "EWMS_TMS_RELEASE": "/images/tms", "LANG": "C"}
    assert [line(finding).splitlines()[0] for finding in check_names(environ)] == [
        "WARNING  settings       TMS_FOO: is no setting, and has no effect",
        "WARNING  settings       TMS_METRICS_PROT: is no setting, and has no effect; is TMS_METRICS_PORT meant?",
    ]


async def test_what_an_operator_should_look_at(ground: Ground, tmp_path: Path) -> None:
    state = tmp_path / "jobs" / ".tms"
    async with hold_lock(state / "lock"):
        found = await ground.check(TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT="PATH=/x EWMS_PILOT_A=1")
    assert found["one TMS"].verdict == "warning"
    assert found["settings"].seen.endswith("not for a pilot: PATH")
    found = await ground.check(JOB_EVENT_LOG_DIR=str(tmp_path / "mistyped"), TMS_NO_AUTH="true", EWMS_TOKEN_URL="")
    assert found["directory"].verdict == "warning"
    assert "would make it" in found["directory"].seen
    assert found["token"].verdict == "warning"
    assert "the WMS does not accept our token" in found["WMS"].seen  # it wants one
    assert not (tmp_path / "mistyped").exists()


async def test_a_history_that_cannot_be_asked_is_no_reason_not_to_start() -> None:
    async def refuse(called: str, _moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if called == "history":
            raise CondorRefused("Remote history has been disabled on this schedd")

    schedd = FakeSchedd()
    schedd.hook = refuse
    found = await check_history(schedd)
    assert (found.verdict, found.seen) == ("warning", "Remote history has been disabled on this schedd")
    assert "HISTORY_HELPER_MAX_CONCURRENCY" in found.advice


async def test_the_tmss_own_directory_that_cannot_be_used(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "jobs" / ".tms").touch()
    found = await ground.check()
    assert found["directory"].is_fatal
    assert found["directory"].seen.startswith(str(tmp_path / "jobs" / ".tms"))


async def test_whose_the_jobs_are(ground: Ground) -> None:
    on_a_real_schedd = {name: text for name, text in ground.environ.items() if name != "TMS_SCHEDD_HELPER"}
    assert check_user(read(on_a_real_schedd), 0).is_fatal
    assert not check_user(read(on_a_real_schedd), 1000).is_fatal
    assert not check_user(read(ground.environ), 0).is_fatal


async def test_a_port_that_is_taken(ground: Ground) -> None:
    port = ground.standin.address.rpartition(":")[2]
    assert (await ground.check(TMS_METRICS_PORT=port))["metrics"].verdict == "warning"


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command: list[Any] = [sys.executable, "-m", "ewms", "check", *arguments]
    return subprocess.run(
        command, env={"PATH": os.defpath, **environ}, text=True, capture_output=True, timeout=60, check=False
    )


def test_exit_status_2_lists_every_bad_setting() -> None:
    done = run("tms", EWMS_ADDRESS="nowhere", TMS_NO_AUTH="true")
    assert done.returncode == 2
    assert [text.split()[:2] for text in done.stdout.splitlines()[:-1]] == [["FAILED", "settings"]] * 2
    assert done.stdout.splitlines()[-1] == "The TMS would not work here: settings."
    assert done.stderr == ""


def test_exit_status_1_says_what_does_not_work(tmp_path: Path) -> None:
    done = run(
        "tms",
        EWMS_ADDRESS="http://127.0.0.1:1",
        TMS_NO_AUTH="true",
        JOB_EVENT_LOG_DIR=str(tmp_path),
        TMS_SCHEDD_HELPER="/bin/false",
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "The TMS would not work here: schedd, WMS."
    assert done.stderr == ""


def check_process(tmp_path: Path, stdout: int) -> "subprocess.Popen[str]":
    environ = {
        "PATH": os.defpath,
        "EWMS_ADDRESS": "http://127.0.0.1:1",
        "TMS_NO_AUTH": "true",
        "JOB_EVENT_LOG_DIR": str(tmp_path),
        "TMS_SCHEDD_HELPER": "/bin/sleep 1000",
    }
    command = [sys.executable, "-m", "ewms", "check", "tms"]
    return subprocess.Popen(command, env=environ, text=True, stdout=stdout, stderr=subprocess.PIPE)


def test_ctrl_c_while_the_schedd_is_silent(tmp_path: Path) -> None:
    process = check_process(tmp_path, subprocess.PIPE)
    assert process.stdout is not None
    while "clock" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].strip() == "Aborted!"
    assert process.returncode == 1


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = check_process(tmp_path, writer)
    os.close(writer)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1


def test_help_has_examples_and_exit_statuses() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "2   a setting is missing or wrong" in done.stdout
