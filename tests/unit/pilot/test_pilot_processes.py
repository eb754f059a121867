"""The launcher's supervisors serve one process after the other, and nothing of one is left for the next."""

import os
import signal
from pathlib import Path

import pytest
import trio

from ewms.pilot.containers.base import ContainerError
from ewms.pilot.containers.processes import Command, Launcher, open_launcher
from ewms.pilot.containers.treememory import parent_of

PATIENCE = 60


def shell(directory: Path, script: str, *, stdin: str | None = "") -> Command:
    return Command(
        argv=("/bin/sh", "-c", script),
        env={"PATH": os.environ["PATH"]},
        cwd=directory,
        stdin=stdin,
        stdout=directory / "stdout",
        stderr=directory / "stderr",
    )


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def supervisor_of(launcher: Launcher, directory: Path, script: str = "true") -> int:
    """Who had the process."""
    async with launcher.run(shell(directory, f"echo $PPID; {script}")) as process:
        await process.wait()
    return int((directory / "stdout").read_text())


async def test_one_supervisor_serves_processes_one_after_the_other(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            served = [await supervisor_of(launcher, tmp_path) for _ in range(20)]
    # Two would do; where the machine is slow to tell the launcher that one is idle again, it makes one too many.
    assert len(set(served)) <= len(served) // 2


async def test_what_one_process_used_is_not_the_next_ones(tmp_path: Path) -> None:
    busy = "i=0; while [ $i -lt 500000 ]; do i=$((i + 1)); done"  # much more than a start costs on a busy machine
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            used = []
            for script in (busy, "true", "true", "true"):
                async with launcher.run(shell(tmp_path, script)) as process:
                    used.append((await process.wait()).cpu_s)
    assert used[0] > 4 * max(used[1:])


async def test_what_a_process_leaves_is_gone_before_the_next(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            for _ in range(3):
                async with launcher.run(shell(tmp_path, "setsid sleep 1000 & echo $!")) as process:
                    ended = await process.wait()
                assert ended.swept == 1
                left = int((tmp_path / "stdout").read_text())
                assert not is_there(left)


async def test_a_supervisor_that_was_killed_while_idle_has_a_successor(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            before = {await supervisor_of(launcher, tmp_path) for _ in range(3)}
            for pid in children_of(parent_of(next(iter(before)))):
                os.kill(pid, signal.SIGKILL)
            assert await supervisor_of(launcher, tmp_path) not in before


async def test_many_at_once(tmp_path: Path) -> None:
    codes: list[int] = []

    async def one(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        async with launcher.run(shell(directory, f"read line; exit {number}", stdin="x\n")) as process:
            codes.append((await process.wait()).code)

    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher, trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
    assert sorted(codes) == list(range(20))


async def test_standard_input_may_come_later(tmp_path: Path) -> None:
    script = 'read first; echo "$first"; exec cat'
    with trio.fail_after(PATIENCE):
        command = shell(tmp_path, f"echo >&3; exec 3>&-; {script}", stdin=None)
        async with open_launcher() as launcher, launcher.run(command) as process:
            await process.until_waiting()
            assert (tmp_path / "stdout").read_text() == ""
            await process.feed("one\ntwo ü\udcff\n")
            assert (await process.wait()).code == 0
    assert (tmp_path / "stdout").read_bytes() == "one\ntwo ü".encode() + b"\xff\n"


async def test_one_that_ends_instead_of_waiting_is_said(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher, launcher.run(shell(tmp_path, "exit 3", stdin=None)) as process:
            with pytest.raises(ContainerError, match="ended before"):
                await process.until_waiting()
            assert process.exit is not None
            assert process.exit.code == 3


async def test_one_that_waits_goes_with_its_context(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            async with launcher.run(shell(tmp_path, "echo >&3; exec cat", stdin=None)) as process:
                await process.until_waiting()
                pid = process.pid
            assert not is_there(pid)
            assert await supervisor_of(launcher, tmp_path)


async def test_a_program_that_cannot_be_started_costs_no_supervisor(tmp_path: Path) -> None:
    nothing = Command(argv=("/no/such",), env={}, cwd=tmp_path, stdout=tmp_path / "o", stderr=tmp_path / "e")
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            before = await supervisor_of(launcher, tmp_path)
            for _ in range(3):
                with pytest.raises(ContainerError, match="cannot start /no/such"):
                    async with launcher.run(nothing):
                        pass
            assert is_there(before)
