"""What is the machine's fault, or its time's: no event pays for it, and each has its own exit status."""

import errno
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from pilot_fakes import World, copy
from trio.testing import MockClock

from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery
from ewms.pilot.containers.base import ContainerError, ContainerSpec
from ewms.pilot.errors import ExitStatus, TaskFailed, is_okay
from ewms.pilot.lease import SAFETY_S


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    free = 10**9

    def usage(self, path: object) -> DiskUsage:
        return DiskUsage(10**9, 0, self.free)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


def lease(world: World, seconds: float) -> None:
    ad = world.tmp_path / "ad"
    ad.write_text(f"GLIDEIN_ToDie = {time.time() + seconds:.3f}\n")
    world.system = {"_CONDOR_MACHINE_AD": str(ad)}


# --- the self-check ---


async def test_a_machine_on_which_no_container_starts_takes_no_event(autojump_clock: MockClock, world: World) -> None:
    async def fail(spec: ContainerSpec) -> None:
        raise ContainerError("no user namespaces")

    world.on_check = fail
    world.put("x")
    assert await world.run() == ExitStatus.SELF_CHECK
    assert "source opens" not in world.diary
    assert world.verdicts == []


async def test_a_runtime_that_hangs_is_given_up(autojump_clock: MockClock, world: World) -> None:
    async def hang(spec: ContainerSpec) -> None:
        await trio.sleep_forever()

    world.on_check = hang
    began = trio.current_time()
    assert await world.run() == ExitStatus.SELF_CHECK
    assert trio.current_time() - began == pytest.approx(120, abs=1)


async def test_the_broker_is_reached_while_a_container_is_tried(autojump_clock: MockClock, world: World) -> None:
    connected = trio.Event()

    async def connect() -> None:
        connected.set()

    async def until_connected(spec: ContainerSpec) -> None:
        await connected.wait()
        await trio.sleep(1)
        assert "source opens" not in world.diary

    world.on_connect, world.on_check = connect, until_connected
    world.put("x")
    assert await world.run() == ExitStatus.OK
    assert world.verdicts == [("ack", "in-0")]


async def test_a_broker_that_does_not_answer_holds_up_no_bad_news_of_the_machine(
    autojump_clock: MockClock, world: World
) -> None:
    async def fail(spec: ContainerSpec) -> None:
        await trio.sleep(1)
        raise ContainerError("no user namespaces")

    world.on_connect, world.on_check = trio.sleep_forever, fail
    began = trio.current_time()
    assert await world.run() == ExitStatus.SELF_CHECK
    assert trio.current_time() - began == pytest.approx(1, abs=0.1)


async def test_a_refusal_of_the_broker_ends_the_trial_of_a_container(autojump_clock: MockClock, world: World) -> None:
    async def refuse() -> None:
        await trio.sleep(1)
        raise BrokerRefused("wrong token")

    async def hang(spec: ContainerSpec) -> None:
        await trio.sleep_forever()

    world.on_connect, world.on_check = refuse, hang
    assert await world.run() == ExitStatus.BROKER_REFUSED
    assert not list((world.tmp_path / "ewms-pilot-data").glob("check-*"))


async def test_a_machine_without_room_takes_no_event(autojump_clock: MockClock, world: World, disk: Disk) -> None:
    disk.free = 99_999_999
    world.put("x")
    assert await world.run() == ExitStatus.SELF_CHECK
    assert world.verdicts == []
    assert await world.run(min_free_disk=1000) == ExitStatus.OK


async def test_the_self_check_leaves_no_files(autojump_clock: MockClock, world: World) -> None:
    await world.run()
    assert not list((world.tmp_path / "ewms-pilot-data").glob("check-*"))


# --- the disk ---


async def test_a_task_that_fails_on_a_full_disk_is_not_the_events_fault(
    autojump_clock: MockClock, world: World, disk: Disk
) -> None:
    async def task(spec: ContainerSpec) -> int:
        disk.free = 1000
        return 1

    world.task = task
    world.put("x", "y")
    assert await world.run() == ExitStatus.DATA_DIRECTORY
    assert {name for name, _ in world.verdicts} == {"hand_back"}
    assert world.copies == []


async def test_a_task_that_fills_the_disk_itself_has_failed(
    autojump_clock: MockClock, world: World, disk: Disk
) -> None:
    async def task(spec: ContainerSpec) -> int:
        (spec.scratch / "large").write_bytes(b"x" * 2_000_000)
        disk.free = 1000
        return 1

    world.task = task
    world.put("x")
    assert await world.run(min_free_disk=1_000_000) == ExitStatus.TASKS_FAILED
    assert world.left[0].failures == 1


async def test_no_space_for_the_infile(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, mode: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ewms.pilot.directories.open", full, raising=False)
    world.put("x")
    assert await world.run() == ExitStatus.DATA_DIRECTORY
    assert world.verdicts == [("hand_back", "in-0")]
    assert not list((world.tmp_path / "ewms-pilot-data").glob("*/task-io"))


# --- the lease ---


async def test_no_event_is_waited_for_beyond_the_lease(autojump_clock: MockClock, world: World) -> None:
    lease(world, 200)
    began = trio.current_time()
    assert await world.run(timeout_queue_incoming=10_000) == ExitStatus.OK
    assert trio.current_time() - began == pytest.approx(170, abs=1)
    assert world.listening.is_set()


async def test_no_event_is_begun_that_cannot_finish(autojump_clock: MockClock, world: World) -> None:
    async def slow(spec: ContainerSpec) -> int:
        await trio.sleep(100)
        return await copy(spec)

    world.task = slow
    world.put(*"abcdefgh")
    # 30 s are kept in reserve, and a typical task is known to take up to 110 s.
    lease(world, 360)
    assert await world.run() == ExitStatus.OK
    assert world.outputs == ["a", "b", "c"]
    assert world.unsettled == 0


async def test_a_worker_whose_time_is_over_takes_nothing(autojump_clock: MockClock, world: World) -> None:
    world.put("x")
    lease(world, 20)
    assert await world.run() == ExitStatus.OK
    assert world.outputs == []
    assert {name for name, _ in world.verdicts} <= {"hand_back"}


async def test_running_tasks_have_the_time_that_htcondor_gives_after_sigterm(
    autojump_clock: MockClock, world: World
) -> None:
    ad = world.tmp_path / "job ad"
    ad.write_text("JobMaxVacateTime = 70\n")
    world.system = {"_CONDOR_JOB_AD": str(ad)}

    async def too_long(spec: ContainerSpec) -> int:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(10_000)
        return await copy(spec)

    world.task, began = too_long, trio.current_time()
    world.put("x")
    assert await world.run(stop_grace="") == ExitStatus.STOPPED
    assert trio.current_time() - began == pytest.approx(70 - SAFETY_S, abs=1)
    assert world.verdicts == [("hand_back", "in-0")]


# --- the broker ---


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_broker_that_is_gone_for_good_while_tasks_run(
    autojump_clock: MockClock, world: World, slots: int
) -> None:
    async def long(spec: ContainerSpec) -> int:
        await trio.sleep(1000)
        return 0

    async def lose(delivery: Delivery) -> None:
        if delivery.message_id == f"in-{slots}":
            world.unsettled -= 1
            await trio.sleep(50)
            raise BrokerLost("out of reach for 600 s")

    world.task = long
    world.on_receive = lose
    world.put(*map(str, range(slots + 1)))
    assert await world.run(max_concurrent_tasks=slots, prefetch=slots + 1) == ExitStatus.BROKER_LOST
    assert sorted(world.verdicts) == [("hand_back", f"in-{n}") for n in range(slots)]
    assert (world.running, world.unsettled) == (0, 0)


async def test_a_second_signal_ends_several_tasks_at_once(autojump_clock: MockClock, world: World) -> None:
    async def long(spec: ContainerSpec) -> int:
        await trio.sleep(1000)
        return 0

    async def interrupt() -> None:
        await world.listening.wait()
        for pause in (5, 5):
            await trio.sleep(pause)
            signal.raise_signal(signal.SIGTERM)

    world.task = long
    world.put(*"abc")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt)
        assert await world.run(max_concurrent_tasks=3) == ExitStatus.STOPPED
    assert trio.current_time() - began < 15
    assert sorted(world.verdicts) == [("hand_back", f"in-{n}") for n in range(3)]


# --- okay errors ---


@pytest.mark.parametrize(
    ("names", "pattern", "okay"),
    [
        (("3",), "", True),
        (("33",), "", False),
        ((), "no .*photons", True),
        ((), "nothing like it", False),
        ((), "", False),
    ],
)
def test_okay_errors_by_exit_code_and_pattern(names: tuple[str, ...], pattern: str, okay: bool) -> None:
    assert is_okay(TaskFailed(3, "there are no good photons"), names, pattern) == okay


def test_a_pattern_that_is_none_is_refused(world: World) -> None:
    with pytest.raises(Exception, match=r"OKAY_ERROR_PATTERN: '\(' is not allowed"):
        world.settings(okay_error_pattern="(")
