"""Steps: what they say while they run, the one line they fail with, and nothing left however they end."""

import re
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from ewms.testing.pool import steps
from ewms.testing.pool.steps import PoolUnavailable, complaint, in_parallel, run_step


async def test_newest_line_is_told(tmp_path: Path) -> None:
    told, heard = "", tmp_path / "heard"

    def progress(text: str) -> None:
        nonlocal told
        told = text
        if text.endswith("one"):
            heard.touch()

    script = f"echo I: one; until [ -e {heard} ]; do sleep 0.05; done"
    with trio.fail_after(60):
        await run_step("building", ["sh", "-c", script], progress=progress, log=tmp_path / "log")
    assert re.fullmatch(r"building \(\d+ s\): one", told)


async def test_failure_is_one_line_that_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("E: of an earlier step\n")
    with pytest.raises(PoolUnavailable) as caught:
        await run_step("building", ["sh", "-c", "echo E: no mirror; echo bye; exit 3"], progress=print, log=log)
    assert str(caught.value) == f"building failed: E: no mirror (all of its output: {log})"


async def test_missing_program_is_such_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(PoolUnavailable, match=r"building failed: .*no-such-program: not found"):
        await run_step("building", ["no-such-program"], progress=print, log=log, env={"PATH": "/bin"})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("one\nERROR: two\nERROR: three\nfour\n", "ERROR: two"),
        ("one\n\n two \n\n", "two"),
        ("", ""),
        ("bad \xff byte", "bad � byte"),
    ],
)
def test_complaint(tmp_path: Path, output: str, expected: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(output.encode("latin-1"))
    assert complaint(log) == expected


def lives(pid: int) -> bool:
    """Whether a process is there that is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def number_in(file: Path) -> int:
    return int(file.read_text())


def has_line(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


async def test_cancelled_step_leaves_no_grandchild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_END_GRACE_S", 0.2)
    pid_file = tmp_path / "pid"
    script = f"(trap '' TERM; exec sleep 60) & echo $! > {pid_file}; wait"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            # Its leader ends at SIGTERM at once, its child never does: SIGKILL has to follow.
            nursery.start_soon(
                partial(run_step, "waiting", ["sh", "-c", script], progress=lambda _: None, log=tmp_path / "log")
            )
            while not has_line(pid_file):  # noqa: ASYNC110  a foreign process sets no event
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        while lives(number_in(pid_file)):  # noqa: ASYNC110  as above
            await trio.sleep(0.02)


ONE_STEP = """
import sys
from functools import partial
from pathlib import Path

import trio

from ewms.testing.pool.steps import run_step

trio.run(partial(run_step, "waiting", ["sh", "-c", sys.argv[1]], progress=print, log=Path(sys.argv[2])))
"""


async def test_killed_process_leaves_nothing_of_its_step(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    # A session of its own, as package managers give to what they run.
    script = f"setsid sleep 600 & echo $! > {pid_file}; wait"
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process([sys.executable, "-c", ONE_STEP, script, str(tmp_path / "log")])
        while not has_line(pid_file):  # noqa: ASYNC110  as above
            await trio.sleep(0.02)
        process.kill()
        await process.wait()
        while lives(number_in(pid_file)):  # noqa: ASYNC110  as above
            await trio.sleep(0.02)


async def test_first_failure_cancels_the_others_and_comes_alone() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise PoolUnavailable("no root")

    with trio.fail_after(60), pytest.raises(PoolUnavailable, match="no root"):
        await in_parallel(trio.sleep_forever, fail)
