"""A task's optional limits, what it used, and how it is told."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import trio
from pilot_fakes import World, copy, infile
from trio.testing import MockClock

from ewms.pilot.containers.base import ContainerSpec
from ewms.pilot.containers.treememory import tree_memory
from ewms.pilot.errors import ExitStatus
from ewms.pilot.events import LAST_ERROR


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


async def chatty(spec: ContainerSpec) -> int:
    for _ in range(100):
        append(spec.stdout, "x" * 100)
        append(Path(spec.args[1]), "y" * 1000)
        await trio.sleep(1)
    return 0


async def silent(spec: ContainerSpec) -> int:
    await trio.sleep(100)
    return await copy(spec)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"task_memory_limit": 1000}, "[Memory-Error] it used 5000 bytes of memory, more than the limit of 1000"),
        ({"task_output_limit": 5000}, "[Output-Error] it wrote an outfile of more than 5000 bytes"),
        ({"task_stream_limit": 1000}, "[Output-Error] it wrote more than 1000 bytes to stdout or stderr"),
    ],
)
async def test_a_task_over_a_limit_is_killed_and_has_failed(
    autojump_clock: MockClock, world: World, more: dict[str, int], said: str
) -> None:
    world.task, world.memory = chatty, 5000
    world.put("x")
    began = trio.current_time()
    assert await world.run(**more) == ExitStatus.TASKS_FAILED
    assert trio.current_time() - began < 20
    assert world.left[0].headers[LAST_ERROR] == f"task failed: {said}"
    assert world.running == 0


async def test_a_task_that_says_nothing_for_too_long(autojump_clock: MockClock, world: World) -> None:
    world.task = silent
    world.put("x")
    assert await world.run(task_silence_limit=30) == ExitStatus.TASKS_FAILED
    assert world.left[0].headers[LAST_ERROR] == "task failed: [Silence-Error] it wrote nothing for 30 s"


async def test_a_task_within_its_limits(autojump_clock: MockClock, world: World) -> None:
    world.task, world.memory = chatty, 5000
    world.put("x")
    more = {"task_memory_limit": 5000, "task_output_limit": 100_000, "task_stream_limit": 10_000}
    assert await world.run(**more, task_silence_limit=5) == ExitStatus.OK


async def test_a_quick_task_with_too_large_an_outfile(autojump_clock: MockClock, world: World) -> None:
    world.put("x" * 1001)
    assert await world.run(task_output_limit=1000) == ExitStatus.TASKS_FAILED
    assert "more than the limit of 1000" in world.left[0].headers[LAST_ERROR]


@pytest.mark.parametrize(("limit", "times"), [(50, 1), (200, 0)])
async def test_a_task_that_nears_the_brokers_limit_is_said_once(
    autojump_clock: MockClock, world: World, limit: int, times: int
) -> None:
    world.task = silent
    world.put("x")
    with structlog.testing.capture_logs() as logs:
        assert await world.run(consumer_timeout=limit) == ExitStatus.OK
    assert sum("nears the time" in entry["event"] for entry in logs) == times


@pytest.mark.parametrize(("limit", "is_said"), [(3600, True), (60, False)])
async def test_a_task_timeout_above_the_brokers_limit_is_said_at_the_start(
    autojump_clock: MockClock, world: World, limit: int, is_said: bool
) -> None:
    with structlog.testing.capture_logs() as logs:
        assert await world.run(task_timeout=limit) == ExitStatus.OK
    assert any("CONSUMER_TIMEOUT" in entry.get("note", "") for entry in logs) is is_said


async def test_what_tasks_used_is_told_in_each_line_and_at_the_end(
    autojump_clock: MockClock, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async def task(spec: ContainerSpec) -> int:
        (spec.scratch / "temporary").write_bytes(b"x" * 100_000)
        await trio.sleep(3)
        return await copy(spec)

    world.task = task
    world.put("a", "b")
    with structlog.testing.capture_logs() as logs:
        assert await world.run() == ExitStatus.OK
    lines = [entry for entry in logs if entry["event"] == "task done"]
    assert len(lines) == 2
    assert {name: lines[0][name] for name in ("wall_s", "cpu_s", "memory_mb")} == {
        "wall_s": 3.5,
        "cpu_s": 0.25,
        "memory_mb": 2,
    }
    assert lines[0]["scratch_mb"] >= 0.1
    assert capsys.readouterr().out.startswith("wall time of 2 tasks in s\n≤ ")
    (summary,) = (world.tmp_path / "ewms-pilot-data").glob("summary-*.json")
    told = json.loads(summary.read_text())
    assert (told["succeeded"], told["failed"], told["wall_s"]["count"]) == (2, 0, 2)


async def test_what_events_hold_is_in_no_log(
    autojump_clock: MockClock, world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def task(spec: ContainerSpec) -> int:
        spec.stdout.write_text("written to stdout")
        await copy(spec)
        return int(infile(spec) == b"private, failing")

    world.task = task
    world.put("private, working", "private, failing")
    with caplog.at_level(logging.DEBUG):
        assert await world.run() == ExitStatus.TASKS_FAILED
    assert "task done" in caplog.text
    assert "private" not in caplog.text + "".join(capsys.readouterr())
    assert "written to stdout" not in caplog.text


async def test_the_memory_of_a_tree_includes_children() -> None:
    code = "import subprocess, sys; x = b'1' * 30_000_000; print(1, flush=True); sys.stdin.read()"
    twice = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_python, twice)
        assert await process.stdout.receive_some()  # the child has its memory
        assert tree_memory(process.pid) > 30_000_000
        await process.stdin.aclose()
    assert tree_memory(process.pid) == 0


async def _python(code: str, task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    task_status.started(process)
    await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()
