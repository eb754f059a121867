"""The demo as its user meets it: what it prints, how it ends, and that nothing is left, looked at from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

GROUNDS = ["embedded", pytest.param("pool", marks=pytest.mark.pool)]
DEADLINE_S = 240


def demo(work_dir: Path, ground: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "ewms", "demo", f"--{ground}", "--dir", str(work_dir), *options]


def environment() -> dict[str, str]:
    wheel = os.environ.get("EWMS_TEST_WHEEL")
    return {**os.environ, **({"EWMS_DEMO_WHEEL": wheel} if wheel else {})}


def left_behind(work_dir: Path) -> list[str]:
    """Processes and mounts that have to do with a directory."""
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if str(work_dir) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            words += os.fsencode((process / "cwd").readlink())
        except OSError:
            continue  # it ended while we looked
        if os.fsencode(work_dir) in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


@pytest.mark.parametrize("ground", GROUNDS)
async def test_it_processes_every_event_and_leaves_nothing(ground: str, work_dir: Path) -> None:
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            demo(work_dir, ground, "--events", "20", "--workers", "2"), capture_stdout=True, env=environment()
        )
    text = done.stdout.decode()
    assert "20 of 20 events processed, all results right" in text
    assert '"phase": "condor-complete"' in text
    if ground == "pool":
        assert "a real HTCondor pool: HTCondor 25" in text
        assert "Apptainer 1." in text
    assert left_behind(work_dir) == []


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_in_its_middle_it_leaves_nothing(ground: str, sign: signal.Signals, work_dir: Path) -> None:
    command = demo(work_dir, ground, "--events", "5000", "--workers", "2")
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    text = b""
    with trio.fail_after(DEADLINE_S):
        async with process.stdout:
            async for chunk in process.stdout:
                before, text = text, text + chunk
                if b"RUNNING/Tasking" in text and b"RUNNING/Tasking" not in before:
                    process.send_signal(sign)
        await process.wait()
    assert process.returncode == 130
    assert b"everything is torn down" in text
    assert left_behind(work_dir) == []
