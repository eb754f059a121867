"""The whole pilot with a broker and a platform in memory: each event gets exactly one verdict, and the right one."""

import signal
from pathlib import Path

import attrs
import pytest
import trio
from pilot_fakes import Task, World, copy, infile
from trio.testing import MockClock, wait_all_tasks_blocked

from ewms.pilot import events
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery, PublishRefused, QueueUnavailable
from ewms.pilot.containers.base import ContainerError, ContainerSpec, ImageUnusable
from ewms.pilot.errors import ExitStatus


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def failing(code: int = 1, stderr: str = "") -> Task:
    async def task(spec: ContainerSpec) -> int:
        spec.stderr.write_text(stderr)
        return code

    return task


async def sleep_long(spec: ContainerSpec) -> int:
    await trio.sleep(1000)
    return await copy(spec)


# --- what becomes of one event ---


async def test_each_event_is_published_then_acked(autojump_clock: MockClock, world: World) -> None:
    world.put("one", "two", b"\x00\xff\r\n", "")
    assert await world.run() == ExitStatus.OK
    assert world.outputs == ["one", "two", b"\x00\xff\r\n", ""]
    assert world.verdicts == [("ack", f"in-{n}") for n in range(4)]
    assert world.diary[2:6] == ["container starts", "container is gone", "publish", "ack"]


async def test_no_verdict_waits_for_the_removal_of_files(autojump_clock: MockClock, world: World) -> None:
    seen: list[bool] = []

    def is_there() -> bool:
        return any(path.name != "data-hub" for path in (world.tmp_path / "ewms-pilot-data").glob("*/"))

    async def look(_verdict: str, _delivery: Delivery) -> None:
        seen.append(is_there())

    world.on_verdict = look
    world.put("x", "y")
    assert await world.run() == ExitStatus.OK
    assert seen == [True, True]
    assert not is_there()


async def test_an_output_goes_to_every_outgoing_queue_before_the_one_ack(
    autojump_clock: MockClock, world: World
) -> None:
    world.put("x")
    more = {"queue_outgoing": "a;b", "queue_outgoing_broker_type": "rabbitmq;rabbitmq"}
    more["queue_outgoing_broker_address"] = "h;h"
    assert await world.run(**more) == ExitStatus.OK
    assert [queue for queue, _ in world.published] == ["a", "b"]
    assert world.verdicts == [("ack", "in-0")]


async def test_no_outfile_is_acked_and_nothing_is_sent(autojump_clock: MockClock, world: World) -> None:
    async def silent(spec: ContainerSpec) -> int:
        return 0

    world.task = silent
    world.put("x")
    assert await world.run() == ExitStatus.OK
    assert (world.published, world.verdicts) == ([], [("ack", "in-0")])


async def test_json_goes_in_and_out_as_a_value(autojump_clock: MockClock, world: World) -> None:
    world.put({"a": [1, None]})
    assert await world.run(infile_ext="json", outfile_ext=".json") == ExitStatus.OK
    assert world.outputs == [{"a": [1, None]}]


@pytest.mark.parametrize(
    "case",
    [
        ({}, events.encode({"a": 1}), "infile extension is '.in'"),
        ({}, b"no zstd", "not zstd-compressed"),
        ({"outfile_ext": ".json"}, events.encode("{"), "not valid JSON"),
    ],
)
async def test_an_event_or_output_that_does_not_fit_is_a_failed_task(
    autojump_clock: MockClock,
    world: World,
    capsys: pytest.CaptureFixture[str],
    case: tuple[dict[str, str], bytes, str],
) -> None:
    more, body, said = case
    world.put_body(body)
    assert await world.run(**more) == ExitStatus.TASKS_FAILED
    assert world.verdicts[0] == ("ack", "raw")
    assert said in world.copies[0][1].headers[events.LAST_ERROR]
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("1 TASK(S) FAILED: ")
    assert said in last_line


async def test_an_output_that_no_pilot_could_read_is_a_failed_task(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_DATA_BYTES", 600)
    world.put(b"\xff" * 500)  # in base64 it is larger
    assert await world.run() == ExitStatus.TASKS_FAILED
    assert world.outputs == []
    assert "before it is compressed, more than 600" in world.copies[0][1].headers[events.LAST_ERROR]


async def test_a_failed_task_is_counted_in_a_copy_and_its_words_are_shown(
    autojump_clock: MockClock, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.task = failing(3, "Traceback (most recent call last):\n  here\nKeyError: 'x'\n")
    world.put("x")
    assert await world.run() == ExitStatus.TASKS_FAILED
    assert world.diary[-5:-2] == ["copy", "ack", "source stops"]
    err = capsys.readouterr().err
    assert "--- stderr of " in err
    assert err.splitlines()[-1] == "1 TASK(S) FAILED: task failed (exit code 3): KeyError: 'x'"


async def test_a_task_over_its_time_is_dead_before_the_verdict(autojump_clock: MockClock, world: World) -> None:
    world.task = sleep_long
    world.put("x")
    began = trio.current_time()
    assert await world.run(task_timeout=5) == ExitStatus.TASKS_FAILED
    assert world.diary[2:5] == ["container starts", "container is gone", "copy"]
    assert trio.current_time() - began == pytest.approx(5.5, abs=0.2)


async def test_an_output_that_the_broker_refuses_is_a_failed_task(autojump_clock: MockClock, world: World) -> None:
    async def refuse(body: bytes) -> None:
        raise PublishRefused("too large")

    world.on_publish = refuse
    world.put("x")
    assert await world.run() == ExitStatus.TASKS_FAILED
    assert world.verdicts == [("ack", "in-0")]
    assert world.left[0].failures == 1


async def test_an_output_waits_for_a_full_queue(autojump_clock: MockClock, world: World) -> None:
    began = trio.current_time()

    async def refuse(body: bytes) -> None:
        if trio.current_time() - began < 300:
            raise QueueUnavailable("full")

    world.on_publish = refuse
    world.put("x")
    assert await world.run() == ExitStatus.OK
    assert world.verdicts == [("ack", "in-0")]
    assert not world.left


# --- what ends the pilot is not the event's fault ---


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BrokerLost("gone"), ExitStatus.BROKER_LOST),
        (BrokerRefused("token"), ExitStatus.BROKER_REFUSED),
        (QueueUnavailable("full for ever"), ExitStatus.BROKER_LOST),
        (ZeroDivisionError("a bug"), ExitStatus.BUG),
    ],
)
async def test_an_error_while_publishing_hands_the_event_back(
    autojump_clock: MockClock, world: World, error: Exception, status: ExitStatus
) -> None:
    async def fail(body: bytes) -> None:
        raise error

    world.on_publish = fail
    world.put("x")
    assert await world.run() == status
    assert world.verdicts == [("hand_back", "in-0")]


async def test_an_error_of_one_event_hands_back_all_that_run(autojump_clock: MockClock, world: World) -> None:
    async def one_breaks(spec: ContainerSpec) -> int:
        if infile(spec) == b"bad":
            await trio.sleep(1)
            raise ContainerError("the runtime does not work")
        return await sleep_long(spec)

    world.task = one_breaks
    world.put("good", "bad", "good")
    assert await world.run(max_concurrent_tasks=3) == ExitStatus.RUNTIME
    assert sorted(world.verdicts) == [("hand_back", f"in-{n}") for n in range(3)]
    assert (world.running, world.unsettled) == (0, 0)


async def test_a_data_directory_that_cannot_be_used(autojump_clock: MockClock, world: World) -> None:
    (world.tmp_path / "ewms-pilot-data").write_text("a file")
    world.put("x")
    assert await world.run() == ExitStatus.DATA_DIRECTORY
    assert world.verdicts == []


async def test_a_disk_that_fails_later_hands_the_event_back(autojump_clock: MockClock, world: World) -> None:
    async def close_the_directory(delivery: Delivery) -> None:
        (world.tmp_path / "ewms-pilot-data").rename(world.tmp_path / "away")
        (world.tmp_path / "ewms-pilot-data").write_text("a file")

    world.on_receive = close_the_directory
    world.put("x")
    assert await world.run() == ExitStatus.DATA_DIRECTORY
    assert world.verdicts == [("hand_back", "in-0")]


async def test_an_image_that_cannot_be_used_is_found_before_any_event_is_taken(
    autojump_clock: MockClock, world: World
) -> None:
    async def refuse(image: str) -> None:
        raise ImageUnusable("no such image")

    world.on_prepare = refuse
    world.put("x")
    assert await world.run() == ExitStatus.IMAGE
    assert world.verdicts == []
    assert "source opens" not in world.diary


# --- the init container ---


async def test_the_init_container_runs_once_and_before_the_first_event(autojump_clock: MockClock, world: World) -> None:
    seen = []

    async def task(spec: ContainerSpec) -> int:
        seen.append((spec.image, spec.args[:1] == ("setup",), dict(spec.environment), len(spec.mounts)))
        return 0 if spec.image == "init" else await copy(spec)

    world.task = task
    world.put("x", "y")
    assert await world.run(init_image="init", init_args="setup {{INFILE}}", init_env_json='{"A": 1}') == 0
    hub = str(world.tmp_path / "ewms-pilot-data" / "data-hub")
    assert seen[0] == ("init", True, {"A": "1", "EWMS_TASK_DATA_HUB_DIR": hub}, 1)
    assert [image for image, *_ in seen] == ["init", "image", "image"]


@pytest.mark.parametrize("more", [{}, {"init_timeout": 3}])
async def test_a_failed_init_container_takes_no_event(
    autojump_clock: MockClock, world: World, more: dict[str, int]
) -> None:
    world.task = sleep_long if more else failing(1, "no disk")
    world.put("x")
    assert await world.run(init_image="init", **more) == ExitStatus.INIT_FAILED
    assert world.verdicts == []


# --- when to stop listening ---


async def test_after_a_task_error_no_further_event_is_taken_and_running_ones_finish(
    autojump_clock: MockClock, world: World
) -> None:
    async def task(spec: ContainerSpec) -> int:
        if infile(spec) == b"bad":
            return 1
        await trio.sleep(50)
        return await copy(spec)

    world.task = task
    world.put("good", "bad", "never")
    assert await world.run(max_concurrent_tasks=2) == ExitStatus.TASKS_FAILED
    assert sorted(world.verdicts) == [("ack", "in-0"), ("ack", "in-1")]
    assert [event.data for event in world.left] == ["never", "bad"]


@pytest.mark.parametrize(
    ("more", "failures", "stderr"),
    [
        ({"stop_listening_on_task_error": "no"}, 0, ""),
        ({}, 1, ""),
        ({"okay_errors": "OSError TaskFailed"}, 0, ""),
        ({"okay_errors": "BadInput"}, 0, "Traceback (most recent call last):\n  x\nmy.module.BadInput: no\n"),
    ],
)
async def test_what_does_not_stop_the_listening(
    autojump_clock: MockClock, world: World, more: dict[str, str], failures: int, stderr: str
) -> None:
    world.task = failing(1, stderr)
    for name in ("a", "b"):
        world.put_event(name, message_id=name, ewms_failures=failures)
    assert await world.run(**more) == ExitStatus.TASKS_FAILED
    assert world.verdicts[:2] == [("ack", "a"), ("ack", "b")]


async def test_the_two_timeouts(autojump_clock: MockClock, world: World) -> None:
    began = trio.current_time()
    assert await world.run(timeout_queue_wait_for_first_message=60, timeout_queue_incoming=5) == 0
    assert trio.current_time() - began == pytest.approx(60, abs=0.1)
    world.put("x")
    began = trio.current_time()
    assert await world.run(timeout_queue_wait_for_first_message=60, timeout_queue_incoming=5) == 0
    assert trio.current_time() - began == pytest.approx(5.5, abs=0.2)


@pytest.mark.parametrize("slots", [1, 2, 4])
async def test_after_the_first_event_the_other_timeout_begins_with_that(
    autojump_clock: MockClock, world: World, slots: int
) -> None:
    async def put() -> None:
        for number in range(5):
            await trio.sleep(10 if number == 0 else 4)
            world.put_event(f"x{number}", message_id=f"x{number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        settings = {"timeout_queue_wait_for_first_message": 60, "timeout_queue_incoming": 5}
        assert await world.run(max_concurrent_tasks=slots, **settings) == ExitStatus.OK
    assert len(world.outputs) == 5


async def test_while_a_broker_is_out_of_reach_no_event_is_missed(autojump_clock: MockClock, world: World) -> None:
    """How long none came says something of the queue only where one could have come."""
    world.listening_since = None
    began = trio.current_time()

    async def comes_back() -> None:
        await trio.sleep(50)
        world.listening_since = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(comes_back)
        assert await world.run(timeout_queue_incoming=8) == ExitStatus.OK
    assert trio.current_time() - began == pytest.approx(58, abs=0.1)


async def test_no_event_is_waited_for_while_there_is_no_room(autojump_clock: MockClock, world: World) -> None:
    async def slow(spec: ContainerSpec) -> int:
        await trio.sleep(30)
        return await copy(spec)

    world.task = slow
    world.put("a", "b", "c")
    assert await world.run(timeout_queue_incoming=1) == ExitStatus.OK
    assert len(world.outputs) == 3


async def test_quarantine_after_a_task_error(autojump_clock: MockClock, world: World) -> None:
    world.task = failing()
    world.put("x")
    began = trio.current_time()
    assert await world.run(quarantine_time=600) == ExitStatus.TASKS_FAILED
    assert trio.current_time() - began == pytest.approx(600, abs=2)
    assert world.diary[-1] == "broker closes"


@pytest.mark.parametrize(
    ("error", "status", "stays_s"),
    [
        (BrokerLost("gone"), ExitStatus.BROKER_LOST, 600),
        (BrokerRefused("no"), ExitStatus.BROKER_REFUSED, 0),
        (KeyError("x"), ExitStatus.BUG, 600),
    ],
)
async def test_who_stays_in_quarantine(
    autojump_clock: MockClock, world: World, error: Exception, status: ExitStatus, stays_s: float
) -> None:
    """What the TMS does not hold against the machine is no reason to keep its slot, such as a refused token."""

    async def raise_it() -> None:
        raise error

    world.on_connect = raise_it
    began = trio.current_time()
    assert await world.run(quarantine_time=600) == status
    assert trio.current_time() - began == pytest.approx(stays_s, abs=2)


# --- slots ---


@pytest.mark.parametrize(("slots", "most"), [(0, 1), (1, 1), (4, 4)])
async def test_slots_bound_the_running_tasks(autojump_clock: MockClock, world: World, slots: int, most: int) -> None:
    world.put(*map(str, range(12)))
    assert await world.run(max_concurrent_tasks=slots) == ExitStatus.OK
    assert world.most_running == most
    assert len(world.outputs) == 12


async def test_several_queues_share_the_slots_fairly(autojump_clock: MockClock, world: World) -> None:
    world.put(*["a"] * 20, queue="q1")
    world.put(*["b"] * 20, queue="q2")
    more = {"queue_incoming": "q1;q2", "queue_incoming_broker_type": "rabbitmq;rabbitmq"}
    assert await world.run(**more, queue_incoming_broker_address="h1;h2") == ExitStatus.OK
    assert world.diary.count("broker opens") == 3
    assert 8 <= world.outputs[:20].count("a") <= 12
    assert len(world.outputs) == 40


# --- signals ---


async def test_a_signal_lets_running_tasks_finish_within_the_grace(autojump_clock: MockClock, world: World) -> None:
    async def task(spec: ContainerSpec) -> int:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(99)
        return await copy(spec)

    world.task = task
    world.put("x", "never")
    assert await world.run() == ExitStatus.STOPPED
    assert world.verdicts == [("ack", "in-0")]


@pytest.mark.parametrize(("signals", "seconds"), [(1, 100.5), (2, 1.5)])
async def test_after_the_grace_tasks_are_killed_and_their_events_handed_back(
    autojump_clock: MockClock, world: World, signals: int, seconds: float
) -> None:
    async def task(spec: ContainerSpec) -> int:
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(1)
        return await sleep_long(spec)

    world.task = task
    world.put("x")
    began = trio.current_time()
    assert await world.run() == ExitStatus.STOPPED
    assert world.verdicts == [("hand_back", "in-0")]
    assert trio.current_time() - began == pytest.approx(seconds, abs=0.6)


async def test_a_signal_while_waiting_for_events_ends_the_pilot_at_once(
    autojump_clock: MockClock, world: World
) -> None:
    async def interrupt() -> None:
        await world.listening.wait()
        signal.raise_signal(signal.SIGINT)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt)
        assert await world.run(timeout_queue_incoming=1000) == ExitStatus.STOPPED
    assert trio.current_time() - began < 1


async def test_a_signal_during_the_init_container_ends_the_pilot_at_once(
    autojump_clock: MockClock, world: World
) -> None:
    async def task(spec: ContainerSpec) -> int:
        signal.raise_signal(signal.SIGTERM)
        return await sleep_long(spec)

    world.task = task
    began = trio.current_time()
    assert await world.run(init_image="init") == ExitStatus.STOPPED
    assert trio.current_time() - began < 1
    assert world.running == 0


async def test_a_signal_ends_the_quarantine(autojump_clock: MockClock, world: World) -> None:
    world.task = failing()
    world.put("x")

    async def interrupt() -> None:
        await trio.sleep(100)
        signal.raise_signal(signal.SIGTERM)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt)
        assert await world.run(quarantine_time=600) == ExitStatus.TASKS_FAILED
    assert trio.current_time() - began == pytest.approx(100, abs=1)


async def test_the_stop_order(autojump_clock: MockClock, world: World) -> None:
    async def task(spec: ContainerSpec) -> int:
        signal.raise_signal(signal.SIGTERM)
        return await sleep_long(spec)

    world.task = task
    world.put("x")
    await world.run()
    assert world.diary[-6:] == [
        "container starts",
        "source stops",
        "container is gone",
        "hand_back",
        "source closes",
        "broker closes",
    ]


# --- what the broker took back ---


async def test_an_event_that_was_taken_back_before_its_task_began_is_dropped_and_not_run(
    autojump_clock: MockClock, world: World
) -> None:
    """It was received in advance; then the connection broke, and whoever gets the event now runs it: here, us."""

    async def task(spec: ContainerSpec) -> int:
        if infile(spec) == b"long":
            await trio.sleep(20)
            world.lost.add("in-1")
        return await copy(spec)

    async def redeliver(name: str, delivery: Delivery) -> None:
        if (name, delivery.message_id) == ("hand_back", "in-1"):
            assert world.outputs == ["long"]
            world.lost.clear()
            world.queues["in"].append(attrs.evolve(delivery, returned=1))

    world.task, world.on_verdict = task, redeliver
    world.put("long", "in advance")
    assert await world.run(prefetch=2) == ExitStatus.OK
    assert world.outputs == ["long", "in advance"]
    assert world.verdicts == [("ack", "in-0"), ("hand_back", "in-1"), ("ack", "in-1")]
    assert world.diary.count("container starts") == 2


# --- cancelled at each await that holds something ---


@pytest.mark.parametrize("where", ["receive", "container", "publish"])
async def test_cancelled_anywhere_the_event_is_handed_back_and_nothing_runs(
    autojump_clock: MockClock, world: World, where: str
) -> None:
    reached = trio.Event()

    async def get_stuck(*_: object) -> int:
        reached.set()
        await trio.sleep(1000)
        raise AssertionError("not cancelled")

    if where == "container":
        world.task = get_stuck
    elif where == "publish":
        world.on_publish = get_stuck
    else:
        # Received, but there is no slot for it.
        world.task = sleep_long
        world.put("runs")

        async def second(delivery: Delivery) -> None:
            if delivery.message_id == "in-1":
                reached.set()

        world.on_receive = second
    world.put("x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.run(prefetch=2))
        await reached.wait()
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert {name for name, _ in world.verdicts} == {"hand_back"}
    assert len(world.verdicts) == (2 if where == "receive" else 1)
    assert (world.running, world.unsettled) == (0, 0)


async def test_a_verdict_under_way_is_completed_when_cancelled(autojump_clock: MockClock, world: World) -> None:
    reached = trio.Event()

    async def slow(name: str, delivery: Delivery) -> None:
        reached.set()
        await trio.sleep(3)

    world.on_verdict = slow
    world.put("x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await reached.wait()
        nursery.cancel_scope.cancel()
    assert world.verdicts == [("ack", "in-0")]


async def test_a_verdict_that_is_never_taken_does_not_hold_the_pilot(autojump_clock: MockClock, world: World) -> None:
    async def never(name: str, delivery: Delivery) -> None:
        await trio.sleep(1000)

    world.on_verdict = never
    world.put("x")
    began = trio.current_time()
    assert await world.run() == ExitStatus.OK
    assert trio.current_time() - began < 15


# --- files ---


@pytest.mark.parametrize(("more", "left"), [({}, 0), ({"keep_all_task_files": "yes"}, 2)])
async def test_files_of_successful_tasks_go_unless_they_are_wanted(
    autojump_clock: MockClock, world: World, more: dict[str, str], left: int
) -> None:
    world.put("a", "b")
    assert await world.run(**more) == ExitStatus.OK
    data = world.tmp_path / "ewms-pilot-data"
    assert len(list(data.glob("*/task-io"))) == left
    assert not list(data.glob("*/scratch"))


async def test_files_of_failed_tasks_are_kept_up_to_a_limit(autojump_clock: MockClock, world: World) -> None:
    world.task = failing(1, "why")
    world.put(*"abcde")
    await world.run(stop_listening_on_task_error="no", keep_failed_count=2)
    kept = [path.parent for path in (world.tmp_path / "ewms-pilot-data").glob("*/task-io")]
    assert len(kept) == 2
    assert {(path / "outputs" / "stderrfile").read_text() for path in kept} == {"why"}
    assert not any((path / "scratch").exists() for path in kept)
