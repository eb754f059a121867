"""The gate: real processes stop at their steps, are killed there, and are never killed elsewhere."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.sweep import victim
from tests.sweep.cases import Act, Trigger
from tests.sweep.control import Control, Story
from tests.sweep.steps import Point

HELPER = """
import sys
for line in sys.stdin.buffer:
    with open(sys.argv[1], "ab") as done:
        done.write(line)
    sys.stdout.buffer.write(b"reply to " + line)
    sys.stdout.buffer.flush()
"""
REQUEST = b'{"id": 1, "call": "submit", "args": {}}\n'


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    control = Control()
    async with control.gate(tmp_path / "gate"):
        yield control


def story(*plan: Trigger) -> Story:
    return Story("TF-1", plan, lambda _act: None, trio.lowlevel.checkpoint, lambda: False)


async def open_helper(directory: Path) -> trio.Process:
    script = directory / "helper.py"
    script.write_text(HELPER)
    command = [sys.executable, "-I", "-S", str(victim.__file__), str(directory / "gate"), "helper", str(script)]
    return await trio.lowlevel.open_process(
        [*command, str(directory / "done")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def asked(process: trio.Process) -> bytes:
    """The answer to one request; empty when there was none."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.fail_after(60):
        await process.stdin.send_all(REQUEST)
        answer = await process.stdout.receive_some()
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()
    return bytes(answer)


async def test_a_helper_that_is_let_go_on_does_its_work(control: Control, tmp_path: Path) -> None:
    told = story()
    control.begin(told)
    process = await open_helper(tmp_path)
    assert await asked(process) == b"reply to " + REQUEST
    assert process.returncode == 0
    assert [str(seen.point) for seen in told.seen] == [
        "helper:started#1",
        "schedd:submit:sent#1",
        "schedd:submit:acted#1",
    ]


@pytest.mark.parametrize(("step", "is_done"), [("schedd:submit:sent", False), ("schedd:submit:acted", True)])
async def test_a_helper_is_killed_before_it_acts_or_before_it_answers(
    control: Control, tmp_path: Path, step: str, is_done: bool
) -> None:
    told = story(Trigger(Point(step), Act.HELPER))
    control.begin(told)
    process = await open_helper(tmp_path)
    assert await asked(process) == b""
    assert process.returncode == -9
    assert (tmp_path / "done").exists() == is_done
    assert (told.is_played, told.kills, told.problems) == (True, 1, [])


async def test_processes_die_with_the_sweep(tmp_path: Path) -> None:
    control = Control()
    async with control.gate(tmp_path / "gate"):
        process = await open_helper(tmp_path)
        with trio.fail_after(60):
            while not control.n_processes:  # noqa: ASYNC110
                await trio.sleep(0.01)
    with trio.fail_after(60):
        await process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        await pipe.aclose()


@pytest.mark.parametrize(
    ("event", "args", "step"),
    [
        ("open", ("/jobs/a", None, os.O_WRONLY | os.O_CREAT), "disk:open:a"),
        ("open", (Path("/jobs/a"), "w", os.O_RDWR), "disk:open:a"),
        ("open", ("/jobs/a", "r", os.O_RDONLY), None),
        ("open", ("/elsewhere", None, os.O_WRONLY), None),
        ("open", (3, "w", os.O_WRONLY), None),  # opened before
        ("os.rename", ("/jobs/.a.new", "/jobs/a", -1, -1), "disk:rename:a"),
        ("os.remove", ("/jobs/not-there", -1), None),
        ("os.mkdir", ("/jobs/new", 0o755, -1), "disk:mkdir:new"),
        ("socket.connect", (), None),
    ],
)
def test_what_a_tms_changes_on_disk_is_a_step(event: str, args: tuple[Any, ...], step: str | None) -> None:
    assert victim.disk_step(event, args, "/jobs") == step
