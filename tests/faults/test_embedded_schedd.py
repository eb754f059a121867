"""The embedded schedd's workers and their ends: whatever dies, no process and no sandbox is left."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio

pytest.importorskip("classad2")

from ewms.testing.schedd import EmbeddedSchedd, EmbeddedScheddFailed, open_embedded_schedd
from ewms.tms.condor.base import CondorUnreachable, Schedd, SubmitValue
from ewms.tms.condor.schedd import open_schedd

SCRIPT = ["/bin/sh", "./job.sh"]
_marks = itertools.count(1)


@attrs.frozen
class Bench:
    directory: Path
    embedded: EmbeddedSchedd
    schedd: Schedd
    mark: str
    """A number that all processes of this test's workers have in their command lines, if they say `sleep MARK`."""

    async def submit(self, script: str, **more: SubmitValue) -> None:
        (self.directory / "job.sh").write_text(script.replace("MARK", self.mark))
        description: dict[str, SubmitValue] = {
            "universe": "container",
            "container_image": "none",
            "log": str(self.directory / "day.jel"),
            "output": str(self.directory / "out"),
            "error": str(self.directory / "err"),
            "transfer_input_files": str(self.directory / "job.sh"),
            "transfer_output_files": '""',
            "job_max_vacate_time": 1,
            **more,
        }
        await self.schedd.submit(description, count=1)

    def numbers(self) -> list[int]:
        log = self.directory / "day.jel"
        events = log.read_text().split("\n...\n")[:-1] if log.exists() else []
        return [number for event in events if (number := int(event[:3])) not in (6, 40)]

    async def until(self, wanted: Callable[["Bench"], bool]) -> None:
        with trio.move_on_after(60):
            while not wanted(self):  # noqa: ASYNC110  other processes do it
                await trio.sleep(0.02)
            return
        pytest.fail(f"events {self.numbers()}, processes {processes(self.mark)}")


def processes(mark: str) -> list[int]:
    """The living processes that have `mark` in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended just now
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"86400.{os.getpid()}{next(_marks):04d}"
    yield mark
    for pid in processes(mark):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def bench(tmp_path: Path, mark: str) -> AsyncIterator[Bench]:
    async with (
        open_embedded_schedd(tmp_path / "schedd", entrypoint=SCRIPT, policy_interval=0.1) as embedded,
        open_schedd(embedded.helper_command) as schedd,
    ):
        yield Bench(tmp_path, embedded, schedd, mark)
    assert processes(mark) == []
    assert list((tmp_path / "schedd/execute").glob("*")) == []


DETACHED = "(setsid sh -c 'sleep MARK & sleep MARK' &) &\n"


async def test_a_removed_worker_takes_what_it_detached_with_it(bench: Bench) -> None:
    await bench.submit(DETACHED + "exec sleep MARK\n")
    await bench.until(lambda bench: len(processes(bench.mark)) == 4)
    await bench.schedd.act("remove", "true", reason="r")
    await bench.until(lambda bench: bench.numbers() == [0, 1, 4, 9])
    assert processes(bench.mark) == []


async def test_a_worker_that_ends_takes_what_it_detached_with_it(bench: Bench) -> None:
    await bench.submit(DETACHED + "sleep 0.1\nexit 4\n")
    await bench.until(lambda bench: bench.numbers() == [0, 1, 5])
    assert processes(bench.mark) == []


async def test_leaving_the_context_ends_running_workers(bench: Bench) -> None:
    await bench.submit("trap '' TERM\n" + DETACHED + "sleep MARK\n")
    await bench.until(lambda bench: len(processes(bench.mark)) >= 4)
    # The fixture asserts the rest.


async def test_a_killed_reaper_is_a_shadow_exception_and_the_job_runs_again(bench: Bench) -> None:
    await bench.submit(DETACHED + "exec sleep MARK\n")
    await bench.until(lambda bench: len(processes(bench.mark)) == 4)
    (reaper,) = children_of(bench.embedded.pid)
    first = set(processes(bench.mark))
    os.kill(reaper, signal.SIGKILL)
    await bench.until(lambda bench: bench.numbers() == [0, 1, 7, 1])
    await bench.until(lambda bench: len(processes(bench.mark)) == 4)
    assert first.isdisjoint(processes(bench.mark))


def children_of(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


async def test_a_killed_daemon_takes_its_workers_and_their_sandboxes_with_it(tmp_path: Path, mark: str) -> None:
    async with (
        open_embedded_schedd(tmp_path / "schedd", entrypoint=SCRIPT) as embedded,
        open_schedd(embedded.helper_command) as schedd,
    ):
        bench = Bench(tmp_path, embedded, schedd, mark)
        await bench.submit(DETACHED + "exec sleep MARK\n")
        await bench.until(lambda bench: len(processes(bench.mark)) == 4)
        os.kill(embedded.pid, signal.SIGKILL)
        await bench.until(lambda bench: processes(bench.mark) == [])
        await bench.until(lambda _: list((tmp_path / "schedd/execute").glob("*")) == [])
        for call in (schedd.query("true", []), schedd.act("hold", "true", reason="r")):
            with pytest.raises(CondorUnreachable, match="the embedded schedd does not answer"):
                await call


OPENER = """
import sys, trio
from ewms import logs
from pathlib import Path
from ewms.testing.schedd import open_embedded_schedd
from ewms.tms.condor.schedd import open_schedd

async def main():
    directory = Path(sys.argv[1])
    async with open_embedded_schedd(directory / "schedd", entrypoint=["/bin/sh", "./job.sh"]) as embedded:
        async with open_schedd(embedded.helper_command) as schedd:
            job = {"universe": "container", "container_image": "none", "transfer_input_files": f"{directory}/job.sh"}
            await schedd.submit(job, count=1)
            print(embedded.pid, flush=True)
            await trio.sleep_forever()

logs.configure("ERROR")
trio.run(main)
"""


async def test_a_killed_opener_takes_all_with_it(tmp_path: Path, mark: str) -> None:
    (tmp_path / "job.sh").write_text((DETACHED + "exec sleep MARK\n").replace("MARK", mark))
    command = [sys.executable, "-c", OPENER, str(tmp_path)]
    opener = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert opener.stdout is not None
    with trio.fail_after(60):
        async with opener.stdout:
            daemon = int(await opener.stdout.receive_some())
            while len(processes(mark)) < 4:  # noqa: ASYNC110
                await trio.sleep(0.02)
            opener.kill()
            await opener.wait()
        while processes(mark) or await trio.Path(f"/proc/{daemon}").exists():  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert list((tmp_path / "schedd/execute").glob("*")) == []


async def test_the_runtime_limit_holds_the_worker_and_the_policy_removes_it(bench: Bench) -> None:
    limit: dict[str, SubmitValue] = {
        "allowed_execute_duration": 1,
        "periodic_remove": "JobStatus == 5 && (HoldReasonCode == 46 || HoldReasonCode == 47)",
    }
    await bench.submit("exec sleep MARK\n", **limit)
    await bench.until(lambda bench: bench.numbers() == [0, 1, 12, 9])
    text = (bench.directory / "day.jel").read_text()
    assert "\n\tThe job exceeded allowed execute duration of 00:01\n\tCode 47 Subcode 0\n" in text


async def test_a_missing_output_file_holds_the_job(bench: Bench) -> None:
    await bench.submit("echo hello > there\n", transfer_output_files="there,nope")
    await bench.until(lambda bench: bench.numbers() == [0, 1, 21, 4, 12])
    assert "\n\tCode 12 Subcode 2\n" in (bench.directory / "day.jel").read_text()


async def test_output_files_come_back(bench: Bench) -> None:
    await bench.submit(
        "echo hello > there; mkdir d; echo x > d/y\n", transfer_output_files="", initialdir=str(bench.directory)
    )
    await bench.until(lambda bench: bench.numbers() == [0, 1, 5])
    assert (bench.directory / "there").read_text() == "hello\n"
    assert not (bench.directory / "d").exists()


async def test_a_program_that_is_not_there_is_exit_status_255(bench: Bench) -> None:
    await bench.submit("", executable="/no/such/program", transfer_executable="false")
    await bench.until(lambda bench: bench.numbers() == [0, 1, 5])
    assert "(return value 255)" in (bench.directory / "day.jel").read_text()
    assert "No such file or directory" in (bench.directory / "err").read_text()


async def test_a_worker_sees_htcondors_environment_and_its_own_and_nothing_of_the_daemons(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EWMS_CLIENT_SECRET", "not for workers")
    async with (
        open_embedded_schedd(tmp_path / "schedd", entrypoint=SCRIPT) as embedded,
        open_schedd(embedded.helper_command) as schedd,
    ):
        bench = Bench(tmp_path, embedded, schedd, mark)
        environment = "\"A=1 B='two words'\""
        script = 'env; echo "ARGS=$*"; cat "$_CONDOR_JOB_AD" "$_CONDOR_MACHINE_AD"; ls -a; pwd\n'
        await bench.submit(script, environment=environment, arguments="x y")
        await bench.until(lambda bench: bench.numbers() == [0, 1, 5])
    lines = (tmp_path / "out").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if line.partition("=")[0].isidentifier()}
    assert {"_CONDOR_SCRATCH_DIR", "_CONDOR_JOB_AD", "_CONDOR_MACHINE_AD", "_CONDOR_CHIRP_CONFIG", "PATH"} <= names
    assert {"A=1", "B=two words", "ARGS=x y", "MachineMaxVacateTime = 10 * 60", "JobMaxVacateTime = 1"} <= set(lines)
    assert "EWMS_CLIENT_SECRET" not in names
    assert "HOME" not in names


async def test_the_default_entrypoint_sources_the_envfile_silently(tmp_path: Path, mark: str) -> None:
    (tmp_path / "ewms_htcondor_envfile.sh").write_text("set -x\nexport EWMS_PILOT_TOKEN='s3cret'\nset +x\n")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$EWMS_PILOT_TOKEN" | wc -c\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    shipped = Path(sys.modules[EmbeddedSchedd.__module__].__file__ or "").with_name("entrypoint.sh")
    entrypoint = ["/bin/sh", str(shipped), str(tmp_path / "python")]
    async with (
        open_embedded_schedd(tmp_path / "schedd", entrypoint=entrypoint) as embedded,
        open_schedd(embedded.helper_command) as schedd,
    ):
        bench = Bench(tmp_path, embedded, schedd, mark)
        await bench.submit("", transfer_input_files=str(tmp_path / "ewms_htcondor_envfile.sh"))
        await bench.until(lambda bench: bench.numbers() == [0, 1, 5])
    assert (tmp_path / "out").read_text() == "7\n-m ewms pilot\n"
    assert (tmp_path / "err").read_text() == ""


async def test_a_directory_with_a_long_name(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    async with open_embedded_schedd(directory, entrypoint=SCRIPT) as embedded:
        async with open_schedd(embedded.helper_command) as schedd:
            assert await schedd.query("true", []) == []
        assert (directory / "schedd.sock").stat().st_mode & 0o077 == 0


async def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedScheddFailed, match="expected one argument"):
        async with open_embedded_schedd(tmp_path, entrypoint=SCRIPT, name="--x"):
            pass
