"""A part of the TMS that is stuck stops the watchdog's pings and is named; what merely waits does not."""

import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import trio
import trio.testing
from test_tms_inside import fetch, free_port, health, hear, notify_socket
from test_tms_service import Ground, ground, process
from tms_bench import until
from tms_virtual import World, open_world

from ewms.testing.fakeschedd import Moment
from ewms.testing.hanging import hanging_file
from ewms.tms.condor.base import CondorError, CondorUnreachable
from ewms.tms.condor.schedd import HelperSchedd, _Lane, _Start
from ewms.tms.inside import Inside
from ewms.tms.systemd import Notifier, keep_informed
from ewms.wms.models import Phase

__all__ = ["ground"]  # a fixture

OLD_LOG = "2020-01-01.tms.jel"
ALLOWED = 300  # s, TMS_STUCK_TIME's default


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Threads read and write small files meanwhile: they get a little real time before the clock jumps."""
    return trio.testing.MockClock(autojump_threshold=0.004)


@asynccontextmanager
async def informed(world: World, directory: Path) -> AsyncIterator[tuple[Inside, list[str]]]:
    """The running TMS as it is seen from outside, and what systemd hears."""
    said: list[str] = []
    inside = Inside(pulse=world.ctx.pulse)
    inside.show(world.ctx)
    inside.is_ready.set()
    with notify_socket(directory / "notify") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, listener, said)
            notifier = Notifier(str(directory / "notify"))
            nursery.start_soon(keep_informed, notifier, inside.pulse, inside.status_now, inside.is_ready)
            await world.until(lambda: bool(said))
            yield inside, said
            nursery.cancel_scope.cancel()


async def test_a_file_system_call_that_hangs_stops_the_pings_and_is_named(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "jobs", may_be_stuck=True) as world, informed(world, tmp_path) as (inside, said):
        with hanging_file(tmp_path / "jobs" / OLD_LOG):
            took = await world.until(lambda: said[-1].startswith("STATUS=stuck: "), 2 * ALLOWED)
            assert ALLOWED < took < ALLOWED + 30
            assert said[-1].startswith(f"STATUS=stuck: watch {OLD_LOG} (silent for 3")
            status, answer = health(inside)
            assert (status, answer["healthy"], list(answer["stuck"])) == (503, False, [f"watch {OLD_LOG}"])
            n_said = len(said)
            uuid = world.bench.order()  # the others do their work all the same
            await world.until(lambda: bool(world.bench.taskforce(uuid).compound_statuses), 600)
            assert not [each for each in said[n_said:] if "WATCHDOG=1" in each]
        await world.until(lambda: said[-1].startswith("WATCHDOG=1"), 60)
        assert health(inside)[0] == 200


async def test_a_child_that_waits_for_nothing_in_particular_is_stuck(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(call: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if call == "query" and world.bench.schedd.queued:
            await trio.sleep_forever()  # without any deadline: that is a bug

    async with open_world(tmp_path, may_be_stuck=True) as world, informed(world, tmp_path) as (inside, said):
        await started(world)
        world.bench.schedd.hook = hang
        world.bench.order()
        await world.until(lambda: "stuck: starts" in said[-1], 60 + ALLOWED + 30)
        assert "starts" in health(inside)[1]["stuck"]


async def started(world: World) -> str:
    uuid = world.bench.order()
    await world.until(lambda: bool(world.bench.taskforce(uuid).compound_statuses))
    return uuid


class SilentHelper:
    """It takes every request and never answers; killed, it is gone at once."""

    is_gone, pid = True, 1

    async def exchange(self, _request: object) -> NoReturn:
        await trio.sleep_forever()

    async def kill(self) -> None:
        await trio.lowlevel.checkpoint()


class SilentStart:
    async def helper(self, _name: str) -> SilentHelper:
        await trio.lowlevel.checkpoint()
        return SilentHelper()


async def test_nobody_is_stuck_who_waits_for_a_silent_schedd(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Though all ask the same helper, one after the other, each until its deadline."""
    unreachable: list[str] = []

    def observe(call: str, fault: type[CondorError] | None, _seconds: float) -> None:
        assert fault is CondorUnreachable
        unreachable.append(call)

    start = cast("_Start", SilentStart())
    silent = HelperSchedd(*(_Lane(name, start, 60, observe) for name in ("reads", "submits")))
    async with open_world(tmp_path, schedd=silent, audit_interval=60, file_manager_interval=60) as world:
        for _ in range(3):
            world.bench.order()
        await trio.sleep(5 * ALLOWED)
        assert world.ctx.pulse.names() >= {"starts", "stops", "audit", "housekeeping", "report", "watch"}
    assert len(unreachable) > 20


async def test_an_input_file_that_hangs_whoever_looks_at_it_is_its_orders_own_trouble(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of seven orders leaves a thread that hangs; nobody is stuck, and others' files are looked at."""
    file_server = threading.Event()

    def look(paths: Sequence[str], *_: object) -> None:
        if paths[0].startswith("/gone/"):
            file_server.wait()

    monkeypatch.setattr("ewms.tms.inspection.check_input_files", look)
    try:
        async with open_world(tmp_path) as world:
            hanging = [world.bench.order(priority=99, input_files=[f"/gone/{number}"]) for number in range(7)]
            good = world.bench.order(priority=1, input_files=["/there"])
            await world.until(lambda: bool(world.bench.taskforce(good).compound_statuses), 4 * ALLOWED)
    finally:
        file_server.set()
    for uuid in hanging:
        failures = [each.context for each in world.bench.taskforce(uuid).phase_change_log if not each.was_successful]
        assert len(failures) == 3
        assert all("not looked through within 120 s: a file system does not answer" in each for each in failures)


async def test_nobody_is_stuck_whose_interval_is_long(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    names = ("outer_loop_wait", "watcher_interval", "audit_interval", "file_manager_interval")
    waits: dict[str, Any] = dict.fromkeys(names, 4 * ALLOWED)
    async with open_world(tmp_path, **waits):
        await trio.sleep(5 * ALLOWED)


async def test_a_stuck_part_of_a_process_stops_its_pings_until_it_goes_on(ground: Ground, tmp_path: Path) -> None:
    port, log_dir = free_port(), tmp_path / "jobs"
    said: list[str] = []
    settings = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "300000",
        "TMS_METRICS_PORT": str(port),
        "TMS_STUCK_TIME": "5",
        "TMS_SCHEDD_TIMEOUT": "5",
    }
    with notify_socket(tmp_path / "notify") as listener:
        async with trio.open_nursery() as nursery, process(ground, tmp_path / "tms.log", **settings) as running:
            nursery.start_soon(hear, listener, said)
            first = ground.bench.order()
            await until(lambda: bool(ground.bench.taskforce(first).compound_statuses))
            await until(lambda: any(each.startswith("WATCHDOG=1") for each in said))
            with hanging_file(log_dir / OLD_LOG):
                await until(lambda: f"stuck: watch {OLD_LOG}" in said[-1])
                answer = await fetch(port, "/healthz")
                assert answer.status_code == 503
                assert f"watch {OLD_LOG}" in answer.json()["stuck"]
                n_said = len(said)
                uuid = ground.bench.order()
                await until(lambda: bool(ground.bench.taskforce(uuid).compound_statuses))
                assert not [each for each in said[n_said:] if "WATCHDOG=1" in each]
            await until(lambda: said[-1].startswith("WATCHDOG=1"))
            with hanging_file(log_dir / OLD_LOG):
                running.terminate()  # at once, or in the middle of it: that does not keep it from ending
                with trio.fail_after(60):
                    assert await running.wait() == 0
            nursery.cancel_scope.cancel()
    log = (tmp_path / "tms.log").read_text()
    assert log.count(f"child='watch {OLD_LOG}'") == 2  # stuck, and not any more
    assert "Traceback" not in log


async def test_a_child_that_loops_without_end_stops_the_pings(ground: Ground, tmp_path: Path) -> None:
    said: list[str] = []
    flag, log = tmp_path / "spin", tmp_path / "tms.log"
    settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000", "PYTHONFAULTHANDLER": "1"}
    program = [sys.executable, str(Path(__file__).with_name("spinning_tms.py")), str(flag)]
    with notify_socket(tmp_path / "notify") as listener:
        async with trio.open_nursery() as nursery, process(ground, log, program=program, **settings) as running:
            nursery.start_soon(hear, listener, said)
            await until(lambda: any(each.startswith("WATCHDOG=1") for each in said))
            flag.touch()
            n_said = -1
            with trio.fail_after(60):
                while n_said != len(said):  # it says nothing any more, where it spoke ten times a second
                    n_said = len(said)
                    await trio.sleep(3)
            running.send_signal(signal.SIGABRT)  # as systemd does
            with trio.fail_after(60):
                assert await running.wait() == -signal.SIGABRT
            nursery.cancel_scope.cancel()
    text = log.read_text()
    assert "Fatal Python error: Aborted" in text
    assert "in spin" in text  # the place where it was


async def test_it_is_ready_when_the_schedd_has_answered_and_works_before(ground: Ground, tmp_path: Path) -> None:
    said: list[str] = []
    flag, log = tmp_path / "hang", tmp_path / "tms.log"
    port = free_port()
    helper = f"{sys.executable} {Path(__file__).with_name('hanging_helper.py')} {flag}"
    settings = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "300000",
        "TMS_METRICS_PORT": str(port),
        "TMS_SCHEDD_HELPER": f"{helper} {ground.environ['TMS_SCHEDD_HELPER']}",
        "TMS_SCHEDD_TIMEOUT": "2",
    }
    uuid = ground.bench.order()
    async with process(ground, log, **settings):
        await until(lambda: ground.bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
    flag.touch()
    ground.bench.stop(uuid)
    with notify_socket(tmp_path / "notify") as listener:
        async with trio.open_nursery() as nursery, process(ground, log, **settings):
            nursery.start_soon(hear, listener, said)
            await until(lambda: bool(said) and "not ready, waits for the schedd, which does not answer" in said[-1])
            answer = await fetch(port, "/healthz")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            # Removing and reading need no answer of the queue.
            await until(lambda: ground.bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE)
            assert all(each.startswith("EXTEND_TIMEOUT_USEC=") for each in said)
            flag.unlink()
            await until(lambda: any(each.startswith("READY=1") for each in said))
            assert (await fetch(port, "/healthz")).status_code == 200
            nursery.cancel_scope.cancel()
