"""The pilot as a program: `ewms pilot` with the embedded broker and real processes, from the outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from ewms.pilot.errors import ExitStatus
from ewms.testing import localqueue

PATIENCE = 60
COPY = "cp {{INFILE}} {{OUTFILE}}"
# A task that forks twice, ignores SIGTERM, holds its output open and leaves the session.
CLINGING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(os.environ["READY"], "w").close()
        time.sleep(1000)
    os._exit(0)
time.sleep(1000)
"""


@attrs.frozen
class Site:
    """A directory with a broker, a pilot's environment, and a clinging task."""

    path: Path

    @property
    def queues(self) -> Path:
        return self.path / "queues"

    @property
    def ready(self) -> Path:
        return self.path / "ready"

    def environ(self, **more: object) -> dict[str, str]:
        own = {
            "TASK_IMAGE": "unused",
            "TASK_ARGS": COPY,
            "QUEUE_INCOMING": "in",
            "QUEUE_OUTGOING": "out",
            "DATA_DIR_PARENT_PATH_ON_HOST": self.path,
        } | more
        for direction in ("INCOMING", "OUTGOING"):
            own |= {f"QUEUE_{direction}_BROKER_TYPE": "local", f"QUEUE_{direction}_BROKER_ADDRESS": self.queues}
        return {
            "PATH": os.environ["PATH"],
            "_EWMS_PILOT_CONTAINER_PLATFORM": "process",
            **{f"EWMS_PILOT_{name}": str(value) for name, value in own.items()},
        }

    def clinging(self) -> dict[str, object]:
        script = self.path / "clinging.py"
        script.write_text(CLINGING)
        environment = f'{{"READY": "{self.ready}"}}'
        return {"TASK_ARGS": f"{sys.executable} -I -S {script} {self.path}", "TASK_ENV_JSON": environment}

    async def put(self, *data: Any) -> None:
        await localqueue.put(self.queues, "in", data)

    async def outputs(self) -> list[Any]:
        return [event.data for event in await localqueue.drain(self.queues, "out")]

    async def left(self) -> list[Any]:
        return [event.data for event in await localqueue.drain(self.queues, "in")]

    async def start(self, **more: object) -> trio.Process:
        return await trio.lowlevel.open_process(pilot_command(), env=self.environ(**more), stderr=subprocess.DEVNULL)

    async def run(self, **more: object) -> "subprocess.CompletedProcess[str]":
        with trio.fail_after(PATIENCE):
            ended = await trio.run_process(
                pilot_command(), env=self.environ(**more), capture_stdout=True, capture_stderr=True, check=False
            )
        return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def processes(self) -> list[int]:
        """Tasks that live: this directory is on their command line."""
        return [pid for pid, line in _command_lines() if str(self.path).encode() in line]

    async def until_a_task_runs(self) -> None:
        with trio.fail_after(PATIENCE):
            while not self.ready.exists():  # noqa: ASYNC110  another process raises no event here
                await trio.sleep(0.02)
        assert len(self.processes()) >= 2


def pilot_command() -> Sequence[str]:
    return [sys.executable, "-m", "ewms", "pilot"]


def _command_lines() -> list[tuple[int, bytes]]:
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                found.append((int(directory.name), (directory / "cmdline").read_bytes()))
            except OSError:
                continue
    return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_events_become_outputs(site: Site) -> None:
    await site.put("payload", b"\x00\xff", "")
    ended = await site.run(MAX_CONCURRENT_TASKS=2)
    assert ended.returncode == ExitStatus.OK
    assert sorted(await site.outputs(), key=str) == ["", b"\x00\xff", "payload"]
    assert await site.left() == []
    assert "payload" not in ended.stderr


@pytest.mark.parametrize(("task", "status"), [(COPY, ExitStatus.OK), ("cat {{INFILE}} /none", ExitStatus.TASKS_FAILED)])
async def test_an_output_of_its_own_that_takes_nothing_fails_no_task(site: Site, task: str, status: int) -> None:
    """HTCondor's file for it is on the worker's disk, which may be full."""
    await site.put("payload")
    with Path("/dev/full").open("wb") as full, trio.fail_after(PATIENCE):  # noqa: ASYNC230  it waits for nobody
        ended = await trio.run_process(
            pilot_command(), env=site.environ(TASK_ARGS=task), stdout=full, stderr=full, check=False
        )
    assert ended.returncode == status


async def test_an_output_of_its_own_that_cannot_show_everything(site: Site) -> None:
    await site.put("a → b")
    environ = site.environ(TASK_ARGS="cat {{INFILE}}", DUMP_TASK_OUTPUT=True) | {"PYTHONIOENCODING": "ascii"}
    with trio.fail_after(PATIENCE):
        ended = await trio.run_process(pilot_command(), env=environ, capture_stdout=True, check=False)
    assert ended.returncode == ExitStatus.OK
    assert b"a \\u2192 b" in ended.stdout


async def test_a_failing_task(site: Site) -> None:
    await site.put("x")
    ended = await site.run(TASK_ARGS="sh -c 'echo first; echo the reason >&2; exit 3'")
    assert ended.returncode == ExitStatus.TASKS_FAILED
    assert ended.stderr.splitlines()[-1] == "1 TASK(S) FAILED: task failed (exit code 3): the reason"
    assert "first" in ended.stdout
    assert await site.left() == ["x"]
    assert [path.read_text() for path in site.path.glob("ewms-pilot-data/*/outputs/stderrfile")] == ["the reason\n"]


async def test_the_task_gets_its_variables_and_none_of_the_pilots(site: Site) -> None:
    await site.put("x")
    ended = await site.run(TASK_ARGS="sh -c 'env > {{OUTFILE}}'", TASK_ENV_JSON='{"MINE": "a\\nb"}')
    assert ended.returncode == 0
    (text,) = await site.outputs()
    names = {line.partition("=")[0] for line in text.splitlines() if "=" in line}
    assert names <= {
        *("MINE", "EWMS_TASK_INFILE", "EWMS_TASK_OUTFILE", "EWMS_TASK_DATA_HUB_DIR"),
        *("PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"),
    }
    assert "MINE=a\nb" in text


async def test_a_timeout_kills_the_whole_tree(site: Site) -> None:
    await site.put("x")
    ended = await site.run(TASK_TIMEOUT=5, **site.clinging())  # time enough for it to cling, on a busy machine, too
    assert ended.stderr.splitlines()[-1] == "1 TASK(S) FAILED: task failed: [Timeout-Error] timed out after 5s"
    assert site.ready.exists()
    assert site.processes() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_hands_the_event_back_and_leaves_nothing(site: Site, number: signal.Signals) -> None:
    await site.put("x")
    pilot = await site.start(STOP_GRACE=0.3, **site.clinging())
    await site.until_a_task_runs()
    pilot.send_signal(number)
    with trio.fail_after(PATIENCE):
        assert await pilot.wait() == ExitStatus.STOPPED
    assert site.processes() == []
    assert await site.left() == ["x"]


async def test_a_pilot_killed_with_9_leaves_nothing_and_loses_nothing(site: Site) -> None:
    await site.put("x")
    pilot = await site.start(**site.clinging())
    await site.until_a_task_runs()
    pilot.kill()
    await pilot.wait()
    with trio.fail_after(PATIENCE):
        while site.processes():  # noqa: ASYNC110  another process raises no event here
            await trio.sleep(0.02)
    ended = await site.run()
    assert ended.returncode == 0
    assert await site.outputs() == ["x"]


async def test_bad_settings_are_told_one_a_line(site: Site) -> None:
    ended = await site.run(PREFETCH=0, TASK_ARGS="it's")
    assert ended.returncode == ExitStatus.CONFIGURATION
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["EWMS_PILOT_PREFETCH", "EWMS_PILOT_TASK_ARGS"]


async def test_a_platform_that_is_not_there_is_one_clear_error(site: Site) -> None:
    environ = site.environ() | {"_EWMS_PILOT_CONTAINER_PLATFORM": "bwrap", "PATH": "/nonexistent"}
    ended = await trio.run_process(pilot_command(), env=environ, capture_stderr=True, check=False)
    assert ended.returncode == ExitStatus.RUNTIME
    assert b"`bwrap` was not found (PATH=/nonexistent)" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_run_loads_no_client_that_it_does_not_use(site: Site) -> None:
    """Light: neither asyncio's broker clients, nor HTTP, nor HTCondor's bindings."""
    program = (
        "import sys, trio; from ewms.pilot import cli, service; from ewms.pilot.settings import read; import os;"
        "trio.run(service.main, read(os.environ));"
        "print('loaded', *sorted({'aiormq','nats','pulsar','trio_asyncio','httpx','htcondor2'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=site.environ(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "loaded"


def test_help_has_an_example_and_the_exit_statuses() -> None:
    ended = subprocess.run([*pilot_command(), "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "export EWMS_PILOT_TASK_IMAGE" in ended.stdout
    for status in ExitStatus:
        assert f"{status.value} " in ended.stdout
