"""Events that fail again and again: counted across pilots, parked, and never acked without a confirmed copy."""

import json
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import zstandard
from pilot_fakes import World, copy, infile, nothing
from trio.testing import MockClock

from ewms.pilot import events, memory
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery, PublishRefused, QueueUnavailable
from ewms.pilot.containers.base import ContainerSpec
from ewms.pilot.errors import ExitStatus
from ewms.pilot.memory import FIRST_HOLD_S
from ewms.pilot.work import HELD_CHECK_S, VERDICT_LIMIT_S


async def fails(spec: ContainerSpec) -> int:
    return 1


async def bad_fails(spec: ContainerSpec) -> int:
    return 1 if infile(spec) == b"bad" else await copy(spec)


async def slow_is_slow(spec: ContainerSpec) -> int:
    if infile(spec).startswith(b"slow"):
        await trio.sleep(1000)
    return await bad_fails(spec)


def handed_back_at(world: World) -> list[float]:
    """When events will have been handed back, in s from now."""
    began, at = trio.current_time(), list[float]()

    async def note(name: str, delivery: Delivery) -> None:
        if name == "hand_back":
            at.append(trio.current_time() - began)

    world.on_verdict = note
    return at


def raising(error: Exception, *, only: str = "") -> Callable[[str], Awaitable[None]]:
    async def raise_it(queue: str) -> None:
        if only in queue:
            raise error

    return raise_it


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, task=bad_fails, redeliver=True)


async def test_failures_are_counted_across_pilots_until_the_event_is_parked(
    autojump_clock: MockClock, world: World
) -> None:
    world.put("bad")
    for count in range(1, 6):
        assert await world.run() == ExitStatus.TASKS_FAILED
        (event,) = world.left
        assert (event.failures, event.parked) == (count, count == 5)
        assert (event.event_id, event.id_source) == ("in-0", events.IdSource.BROKER)
        assert event.headers[events.LAST_ERROR] == "task failed (exit code 1): <no stderr logs>"
    assert [name for name, _ in world.verdicts if name == "reject"] == []
    runs = world.diary.count("container starts")
    assert await world.run() == ExitStatus.ONLY_PARKED
    assert world.diary.count("container starts") == runs == 5
    assert len(world.left) == 1
    assert world.unsettled == 0


async def test_only_the_first_failure_of_an_event_makes_the_machine_suspect(
    autojump_clock: MockClock, world: World
) -> None:
    world.put_event("bad", ewms_failures=1)
    world.put_event("good", message_id="g")
    assert await world.run() == ExitStatus.TASKS_FAILED
    assert world.outputs == ["good"]


async def test_a_binary_event_is_parked_unharmed(autojump_clock: MockClock, world: World) -> None:
    world.task = fails
    world.put(b"\x00\xff\r\n")
    assert await world.run(max_failures=1) == ExitStatus.TASKS_FAILED
    assert world.left[0].data == b"\x00\xff\r\n"
    assert world.left[0].parked


async def test_a_parked_event_goes_to_the_deadletter_queue_before_the_ack(
    autojump_clock: MockClock, world: World
) -> None:
    world.put_event("bad", ewms_failures=4)
    assert await world.run(queue_deadletter="dead") == ExitStatus.TASKS_FAILED
    assert world.left == []
    ((queue, event),) = world.copies
    assert (queue, event.failures, event.parked) == ("dead", 5, True)
    assert world.diary.index("copy") < world.diary.index("ack")


async def test_events_that_others_parked_in_their_queue_go_to_the_deadletter_queue(
    autojump_clock: MockClock, world: World
) -> None:
    world.put_event("bad", ewms_failures=5, ewms_parked=True)
    assert await world.run(queue_deadletter="dead") == ExitStatus.ONLY_PARKED
    assert world.left == []
    assert [queue for queue, _ in world.copies] == ["dead"]
    assert "container starts" not in world.diary


@pytest.mark.parametrize("error", [PublishRefused("full"), BrokerLost("gone"), BrokerRefused("token")])
async def test_without_the_deadletter_queue_the_event_is_parked_in_its_own(
    autojump_clock: MockClock, world: World, error: Exception
) -> None:
    world.on_copy = raising(error, only="dead")
    world.put_event("bad", ewms_failures=4)
    assert await world.run(queue_deadletter="dead") == ExitStatus.TASKS_FAILED
    assert world.left[0].parked


async def test_where_no_queue_takes_a_copy_the_event_is_rejected(autojump_clock: MockClock, world: World) -> None:
    world.on_copy = raising(PublishRefused("no"))
    world.put("bad")
    assert await world.run() == ExitStatus.TASKS_FAILED
    assert world.verdicts == [("reject", "in-0")]


async def test_a_broker_that_is_lost_while_the_copy_is_published(autojump_clock: MockClock, world: World) -> None:
    world.on_copy = raising(BrokerLost("gone"))
    world.put("bad")
    assert await world.run() == ExitStatus.BROKER_LOST
    assert {name for name, _ in world.verdicts} == {"hand_back"}
    assert [event.failures for event in world.left] == [0]


async def test_cancelled_while_the_copy_is_published(autojump_clock: MockClock, world: World) -> None:
    reached = trio.Event()

    async def get_stuck(queue: str) -> None:
        reached.set()
        await trio.sleep(1000)

    world.on_copy = get_stuck
    world.put("bad")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await reached.wait()
        nursery.cancel_scope.cancel()
    assert world.verdicts == [("hand_back", "in-0")]


async def test_a_body_that_nobody_can_read_is_parked_at_once_and_whole(autojump_clock: MockClock, world: World) -> None:
    world.put_body(b"no zstd")
    world.put("good")
    assert await world.run(queue_deadletter="dead") == ExitStatus.TASKS_FAILED
    ((_, event),) = world.copies
    assert event.data == b"no zstd"
    assert event.parked
    assert "not zstd-compressed" in event.headers[events.LAST_ERROR]
    assert world.outputs == ["good"]  # it says nothing about this machine


@pytest.mark.parametrize("field", ["data", "headers"])
async def test_an_event_that_can_be_read_but_not_written_again_is_parked_whole(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """How deep that is differs by a few levels between Python's versions: here it is 100."""

    def dumps(value: Any, **how: Any) -> str:
        text = json.dumps(value, **how)
        if "[" * 100 in text:
            raise RecursionError("maximum recursion depth exceeded")
        return text

    deep = "[" * 100 + "]" * 100
    data = deep if field == "data" else '"bad"'
    text = f'{{"headers": {{"x": {deep if field == "headers" else 0}}}, "data": {data}}}'
    body = zstandard.ZstdCompressor().compress(text.encode())
    monkeypatch.setattr(events, "json", SimpleNamespace(loads=json.loads, dumps=dumps))
    world.put_body(body)
    assert await world.run(infile_ext=".json", queue_deadletter="dead") == ExitStatus.TASKS_FAILED
    ((_, event),) = world.copies
    assert event.data == body
    assert event.parked
    assert world.unsettled == 0


async def test_a_number_of_failures_that_cannot_be_counted_on(autojump_clock: MockClock, world: World) -> None:
    text = f'{{"headers": {{"ewms-failures": {"9" * 4300}}}, "data": "bad"}}'
    world.put_body(zstandard.ZstdCompressor().compress(text.encode()))
    world.put("good")
    assert await world.run(queue_deadletter="dead") == ExitStatus.OK
    assert [event.data for _, event in world.copies] == ["bad"]
    assert world.outputs == ["good"]


@pytest.mark.parametrize("event_id", ["x" * 300, "half a pair: \ud800", "e-1"])
async def test_any_broker_takes_the_message_id_of_a_copy(
    autojump_clock: MockClock, world: World, event_id: str
) -> None:
    """AMQP takes 255 bytes; an id that no broker takes would end pilot after pilot."""
    world.put_event("bad", ewms_event_id=event_id)
    assert await world.run() == ExitStatus.TASKS_FAILED
    (left,) = world.queues["in"]
    assert left.message_id is not None
    assert len(left.message_id.encode()) <= 64
    assert left.message_id.isascii()
    assert world.left[0].event_id == event_id


async def test_an_event_that_kills_pilots_is_parked_unrun(autojump_clock: MockClock, world: World) -> None:
    world.put("killer", returned=15)
    assert await world.run() == ExitStatus.ONLY_PARKED
    assert "container starts" not in world.diary
    assert "came back 15 times" in world.left[0].headers[events.LAST_ERROR]
    assert world.left[0].parked


@pytest.mark.parametrize("more", [{}, {"ewms_parked": True}])
async def test_what_is_parked_makes_way_for_what_is_behind_it(
    autojump_clock: MockClock, world: World, more: dict[str, bool]
) -> None:
    for number in range(3):
        world.put_event("bad", message_id=f"p{number}", ewms_failures=5, **more)
    for number in range(2):
        world.put_event(f"good{number}", message_id=f"g{number}")
    assert await world.run() == ExitStatus.OK
    assert world.outputs == ["good0", "good1"]
    assert len(world.left) == 3
    # Each was put to the end once, and at most once more after the runs.
    assert len(world.copies) <= 6


@asynccontextmanager
async def coming_later(world: World, data: str, *, after_s: float) -> AsyncIterator[list[float]]:
    """An event that comes after a while; when outputs came, in s from the beginning."""
    began, at = trio.current_time(), list[float]()

    async def note(body: bytes) -> None:
        at.append(trio.current_time() - began)

    async def put() -> None:
        await trio.sleep(after_s)
        world.put_event(data, message_id="later")

    world.on_publish = note
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        yield at


@pytest.mark.parametrize("more", [{"ewms_failures": 5}, {"ewms_failures": 5, "ewms_parked": True}, {}])
async def test_an_idle_pilot_is_not_deaf_because_of_an_event_that_it_does_not_run(
    autojump_clock: MockClock, world: World, more: dict[str, Any]
) -> None:
    """What is held is all that a prefetch of 1 allows."""
    world.put_event("bad", **more)
    async with coming_later(world, "good", after_s=10) as at:
        await world.run(stop_listening_on_task_error="no", timeout_queue_incoming=600)
    assert world.outputs == ["good"]
    assert at[0] <= FIRST_HOLD_S + 2 * HELD_CHECK_S
    assert [event.data for event in world.left] == ["bad"]
    assert world.unsettled == 0


async def test_what_is_let_by_keeps_no_idle_pilot_alive(autojump_clock: MockClock, world: World) -> None:
    began = trio.current_time()
    world.put_parked(3)
    assert await world.run(timeout_queue_incoming=600, max_concurrent_tasks=2) == ExitStatus.ONLY_PARKED
    assert trio.current_time() - began == pytest.approx(600, abs=1)
    assert len(world.left) == 3
    # After 0, 30, 90, 210 and 450 s: a queue in which nothing else is does not turn.
    assert len(world.copies) <= 3 * 5
    assert world.unsettled == 0


async def test_an_event_that_kills_pilots_is_parked_as_soon_as_its_queue_takes_it(
    autojump_clock: MockClock, world: World
) -> None:
    """Its queue is full for a while; to put it back as it is would begin the count anew."""

    async def refuse_once(queue: str) -> None:
        world.on_copy = nothing
        raise QueueUnavailable("full")

    world.on_copy = refuse_once
    world.put("killer", returned=15)
    async with coming_later(world, "good", after_s=10) as at:
        assert await world.run(timeout_queue_incoming=600) == ExitStatus.OK
    assert at[0] <= FIRST_HOLD_S + 2 * HELD_CHECK_S
    assert world.outputs == ["good"]
    assert [(event.data, event.parked) for event in world.left] == [("killer", True)]


@pytest.mark.parametrize(("copy_s", "copies"), [(2, 2), (1000, 1)])
async def test_a_signal_while_an_event_is_let_by_leaves_it_there_once(
    autojump_clock: MockClock, world: World, copy_s: float, copies: int
) -> None:
    """Its copy has the grace, as a task has."""
    seen = 0

    async def slowly(queue: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(copy_s)

    world.on_copy = slowly
    world.put_event("bad", ewms_failures=5, ewms_parked=True)
    assert await world.run(timeout_queue_incoming=600) == ExitStatus.STOPPED
    assert seen == 2
    assert len(world.copies) == copies
    assert len(world.left) == 1
    assert world.unsettled == 0


async def test_what_is_held_goes_to_others_before_the_last_tasks_end(autojump_clock: MockClock, world: World) -> None:
    world.task, at = slow_is_slow, handed_back_at(world)
    world.put("slow", "bad")
    settings = {"stop_listening_on_task_error": "no", "max_concurrent_tasks": 2, "timeout_queue_incoming": 100}
    assert await world.run(**settings) == ExitStatus.TASKS_FAILED
    assert world.outputs == ["slow"]
    assert at
    assert max(at) < 200


async def test_a_held_event_that_the_broker_took_back_is_dropped(autojump_clock: MockClock, world: World) -> None:
    """A copy besides would be a second one."""
    received = list[str]()

    async def note(delivery: Delivery) -> None:
        received.append(delivery.message_id or "")

    async def lose() -> None:
        await trio.sleep(10)
        world.lost |= set(received)

    world.on_receive = note
    world.put_event("bad", ewms_failures=5, ewms_parked=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        assert await world.run(timeout_queue_incoming=100) == ExitStatus.ONLY_PARKED
    assert len(received) == 2
    assert len(world.copies) == 1
    assert world.left == []
    assert world.unsettled == 0


async def test_a_parked_event_does_not_wear_out(autojump_clock: MockClock, world: World) -> None:
    """RabbitMQ drops what came back 20 times."""
    world.put_event("bad", ewms_failures=5, ewms_parked=True, returned=19)
    assert await world.run() == ExitStatus.ONLY_PARKED
    assert world.verdicts[0] == ("ack", "in-0")
    assert world.copies[0][1].parked


async def test_an_event_that_failed_here_is_not_run_here_again(autojump_clock: MockClock, world: World) -> None:
    world.put("bad")
    assert await world.run(stop_listening_on_task_error="no") == ExitStatus.TASKS_FAILED
    assert world.diary.count("container starts") == 1
    assert [event.failures for event in world.left] == [1]


# --- redelivered events ---


async def test_an_event_that_came_back_waits_for_its_task_that_still_runs(
    autojump_clock: MockClock, world: World
) -> None:
    """A broker's consumer_timeout took it back."""

    async def slow(spec: ContainerSpec) -> int:
        if len(world.verdicts) == 0 and world.running == 1:
            world.lost.add("in-0")
            world.put_event("x", message_id="again", returned=1, ewms_event_id="id")
            await trio.sleep(100)
        return await copy(spec)

    world.task = slow
    world.put_event("x", ewms_event_id="id")
    assert await world.run(max_concurrent_tasks=2, timeout_queue_incoming=200) == ExitStatus.OK
    assert world.outputs == ["x"]
    assert world.verdicts == [("ack", "in-0"), ("ack", "again")]


async def test_who_waits_for_a_running_task_takes_no_time_from_those_behind_it(
    autojump_clock: MockClock, world: World
) -> None:
    """Both slots are taken for longer than an event is waited for."""

    async def put() -> None:
        await trio.sleep(50)
        world.lost.add("in-0")
        world.put_event("slow", message_id="again", returned=1, ewms_event_id="id")
        world.put_event("behind", message_id="behind")

    world.task = slow_is_slow
    world.put_event("slow", ewms_event_id="id")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        assert await world.run(max_concurrent_tasks=2, timeout_queue_incoming=100) == ExitStatus.OK
    assert world.outputs == ["slow", "behind"]


@pytest.mark.parametrize("data", ["good", "bad"])
async def test_an_event_that_comes_back_after_its_end_is_acked_without_a_run(
    autojump_clock: MockClock, world: World, data: str
) -> None:
    async def lose(name: str, delivery: Delivery) -> None:
        if delivery.returned:
            world.lost.clear()
        elif data not in world.lost:
            world.lost |= {"", data}
            world.put_event(data, message_id="", returned=1)

    world.on_verdict = lose
    world.put_event(data, message_id="")  # its id is a hash of its body
    await world.run(stop_listening_on_task_error="no")
    assert world.diary.count("container starts") == 1
    assert [name for name, message_id in world.verdicts if not message_id] == ["ack", "ack"]


async def test_equal_events_are_not_taken_for_one(autojump_clock: MockClock, world: World) -> None:
    for _ in range(3):
        world.put_event("same", message_id="", returned=1)
    assert await world.run(max_concurrent_tasks=2) == ExitStatus.OK
    assert world.outputs == ["same"] * 3


async def test_an_equal_event_is_run_though_another_ones_ack_was_given_up(
    autojump_clock: MockClock, world: World
) -> None:
    """The broker may have that ack; nobody knows."""

    async def stall(name: str, delivery: Delivery) -> None:
        if not delivery.returned:
            world.put_event("same", message_id="", returned=1)
            await trio.sleep_forever()

    world.on_verdict = stall
    world.put_event("same", message_id="")
    assert await world.run(prefetch=2) == ExitStatus.OK
    assert world.outputs == ["same"] * 2


async def test_an_event_handed_back_by_another_pilot_is_run(autojump_clock: MockClock, world: World) -> None:
    world.put("x", returned=3)
    assert await world.run() == ExitStatus.OK
    assert world.outputs == ["x"]


async def takes_a_second(queue: str) -> None:
    await trio.sleep(1)


async def test_more_parked_events_than_can_be_remembered_keep_no_pilot_alive(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_REMEMBERED", 5)
    world.put_parked(8)

    world.on_copy = takes_a_second
    with trio.fail_after(1000):
        assert await world.run(timeout_queue_incoming=60) == ExitStatus.ONLY_PARKED
    assert len(world.left) == 8


@pytest.mark.parametrize("remembered", [5, memory.MAX_REMEMBERED])
async def test_a_run_counts_however_many_parked_events_there_are(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """It takes longer than an event is waited for: without counting, the pilot would end behind it."""
    monkeypatch.setattr(memory, "MAX_REMEMBERED", remembered)
    world.task, world.on_copy = slow_is_slow, takes_a_second
    world.put_parked(8)
    async with trio.open_nursery() as nursery:

        async def put() -> None:
            await trio.sleep(30)
            for number in range(3):
                world.put_event(f"slow {number}", message_id=f"s{number}")

        nursery.start_soon(put)
        assert await world.run(timeout_queue_incoming=60) == ExitStatus.OK
    assert len(world.outputs) == 3


async def test_a_parked_event_that_an_operator_puts_back_counts(autojump_clock: MockClock, world: World) -> None:
    """It has the id of the one that was let by, and no failures any more."""
    world.task = slow_is_slow
    world.put_event("bad", ewms_failures=5, ewms_parked=True, ewms_event_id="e")
    async with trio.open_nursery() as nursery:

        async def put() -> None:
            await trio.sleep(70)
            world.put_event("slow", message_id="again", ewms_event_id="e")
            await trio.sleep(500)
            world.put_event("behind", message_id="b")

        nursery.start_soon(put)
        assert await world.run(timeout_queue_incoming=100) == ExitStatus.OK
    assert world.outputs == ["slow", "behind"]


async def test_a_copy_that_is_refused_after_listening_ended_holds_nothing(
    autojump_clock: MockClock, world: World
) -> None:
    at, copies = handed_back_at(world), 0

    async def refuse_late(queue: str) -> None:
        nonlocal copies
        copies += 1
        if copies == 2:
            await trio.sleep(150)
            raise QueueUnavailable("full")

    world.task, world.on_copy = slow_is_slow, refuse_late
    world.put("slow")
    world.put_event("bad", message_id="p", ewms_failures=5, ewms_parked=True)
    assert await world.run(max_concurrent_tasks=2, timeout_queue_incoming=100) == ExitStatus.OK
    assert copies == 2
    assert max(at) < 500


async def test_held_events_are_let_by_one_at_a_time(autojump_clock: MockClock, world: World) -> None:
    """Each copy may need a channel of its own."""
    now = most = 0

    async def count(queue: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(0.1)
        now -= 1

    world.on_copy = count
    world.put_parked(60)
    assert await world.run(prefetch=200, timeout_queue_incoming=100) == ExitStatus.ONLY_PARKED
    assert most == 1
    assert len(world.copies) > 60


async def test_a_broker_that_takes_no_verdict_delays_the_end_once(autojump_clock: MockClock, world: World) -> None:
    dead, ended_at = False, math.inf

    async def hang(name: str, delivery: Delivery) -> None:
        if dead:
            await trio.sleep_forever()

    async def end() -> None:
        nonlocal dead, ended_at
        await trio.sleep(20)
        dead, ended_at = True, trio.current_time()
        signal.raise_signal(signal.SIGTERM)

    world.on_verdict = hang
    world.put_parked(30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        await world.run(prefetch=30, timeout_queue_incoming=600, stop_grace=5)
    assert trio.current_time() - ended_at < 2 * VERDICT_LIMIT_S
