"""An event that fails wherever it runs, on real brokers, with real pilots: counted across them, parked, never lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from broker_places import PARAMS, PATIENCE, Place, nothing_comes, put, take

from ewms.pilot import events
from ewms.pilot.errors import ExitStatus

PUTS = ["good 1", "bad", "good 2"]
TASK = """sh -c '! grep -q bad "$1" && cp "$1" "$2"' - {{INFILE}} {{OUTFILE}}"""


async def run_pilot(place: Place, directory: Path, **more: str) -> int:
    directions = ["INCOMING", "OUTGOING", *(["DEADLETTER"] if "QUEUE_DEADLETTER" in more else [])]
    own = {
        "TASK_IMAGE": "unused",
        "TASK_ARGS": TASK,
        "DATA_DIR_PARENT_PATH_ON_HOST": str(directory),
        "QUEUE_INCOMING": place.queue,
        "QUEUE_OUTGOING": f"{place.queue}-out",
        "STOP_LISTENING_ON_TASK_ERROR": "no",
        "MAX_FAILURES": "2",
        **{f"QUEUE_{direction}_BROKER_TYPE": place.broker_type for direction in directions},
        **{f"QUEUE_{direction}_BROKER_ADDRESS": place.address for direction in directions},
        **{f"QUEUE_{direction}_AUTH_TOKEN": place.token.reveal() for direction in directions},
        **more,
    }
    environ = {"PATH": os.environ["PATH"], "_EWMS_PILOT_CONTAINER_PLATFORM": "process"}
    environ |= {f"EWMS_PILOT_{name}": value for name, value in own.items()}
    with trio.fail_after(2 * PATIENCE):
        ended = await trio.run_process(
            [sys.executable, "-m", "ewms", "pilot"],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    return ended.returncode


async def drain(place: Place, queue: str) -> list[events.Event]:
    found: list[events.Event] = []
    async with place.connect() as broker, broker.source(queue, prefetch=10) as source:
        while True:
            with trio.move_on_after(0.5) as scope:
                delivery = await source.receive()
            if scope.cancelled_caught:
                return found
            found.append(events.decode(delivery.body, delivery.message_id))
            await source.ack(delivery)


@pytest.mark.parametrize("place", [param for param in PARAMS if param != "local"], indirect=True)
@pytest.mark.parametrize("has_deadletter_queue", [True, False])
async def test_failures_are_counted_across_pilots_and_then_the_event_is_parked(
    place: Place, tmp_path: Path, has_deadletter_queue: bool
) -> None:
    deadletter = {"QUEUE_DEADLETTER": f"{place.queue}-dead"} if has_deadletter_queue else {}
    async with place.connect() as broker:
        await put(broker, place.queue, *map(events.encode, PUTS))
    assert await run_pilot(place, tmp_path / "1", **deadletter) == ExitStatus.TASKS_FAILED
    assert sorted(event.data for event in await drain(place, f"{place.queue}-out")) == ["good 1", "good 2"]
    assert await run_pilot(place, tmp_path / "2", **deadletter) == ExitStatus.TASKS_FAILED
    # Nobody runs it any more.
    third = await run_pilot(place, tmp_path / "3", **deadletter)
    assert third == (ExitStatus.OK if has_deadletter_queue else ExitStatus.ONLY_PARKED)

    parked, empty = (
        (f"{place.queue}-dead", place.queue) if has_deadletter_queue else (place.queue, f"{place.queue}-out")
    )
    (event,) = await drain(place, parked)
    assert (event.data, event.failures, event.parked) == ("bad", 2, True)
    assert (event.event_id, event.id_source) == ("m-1", events.IdSource.BROKER)
    assert "exit code 1" in event.headers[events.LAST_ERROR]
    assert await drain(place, empty) == []


async def test_a_copy_may_take_the_events_place_while_it_is_held(place: Place) -> None:
    """Publish to the queue that one consumes from, then ack: what the pilot does with a failed event."""
    async with place.connect() as broker, broker.source(place.queue, prefetch=1) as source:
        await put(broker, place.queue, events.encode(b"\0bad", {"own": "header"}))
        delivery = await take(source)
        event = events.decode(delivery.body, delivery.message_id)
        for failures in (1, 2, 3):
            body = events.encode(event.data, events.failed_headers(event, error="why", parked=failures == 3))
            # The same id each time: a broker must not take the copy for the message that it replaces.
            async with broker.sink(place.queue) as sink:
                await sink.publish(body, message_id="the same")
            assert await nothing_comes(source), "the event's place is not free yet"
            assert await source.ack(delivery)
            delivery = await take(source)
            event = events.decode(delivery.body, delivery.message_id)
            assert (event.data, event.failures, event.parked) == (b"\0bad", failures, failures == 3)
            assert (event.event_id, event.headers["own"], delivery.returned) == ("m-0", "header", 0)
        assert await source.ack(delivery)
        assert await nothing_comes(source)
