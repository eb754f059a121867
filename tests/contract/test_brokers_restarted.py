"""Real pilots at work while the broker is restarted and one of them is killed: every event has its output."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from broker_places import PARAMS, Place, put, take
from nats_admin import make_consumer

from ewms.pilot import events

EVENTS = 40
PATIENCE = 90
SERVERS = {"rabbitmq": "rabbit", "nats": "nats"}


@asynccontextmanager
async def pilot(place: Place, directory: Path) -> AsyncIterator[trio.Process]:
    own = {
        "TASK_IMAGE": "unused",
        "TASK_ARGS": "sh -c 'sleep 0.3; cp $1 $2' - {{INFILE}} {{OUTFILE}}",
        "DATA_DIR_PARENT_PATH_ON_HOST": str(directory),
        "MAX_CONCURRENT_TASKS": "3",
        "TIMEOUT_QUEUE_WAIT_FOR_FIRST_MESSAGE": "20",
        "TIMEOUT_QUEUE_INCOMING": "10",
        "QUEUE_INCOMING": place.queue,
        "QUEUE_OUTGOING": f"{place.queue}-out",
    }
    for direction in ("INCOMING", "OUTGOING"):
        own[f"QUEUE_{direction}_BROKER_TYPE"] = place.broker_type
        own[f"QUEUE_{direction}_BROKER_ADDRESS"] = place.address
        own[f"QUEUE_{direction}_AUTH_TOKEN"] = place.token.reveal()
    environ = {"PATH": os.environ["PATH"], "_EWMS_PILOT_CONTAINER_PLATFORM": "process"}
    environ |= {f"EWMS_PILOT_{name}": value for name, value in own.items()}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "ewms", "pilot"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()


@pytest.mark.parametrize("place", [param for param in PARAMS if param != "local"], indirect=True)
async def test_every_event_has_its_output_though_the_broker_is_restarted_and_a_pilot_killed(
    place: Place, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if os.environ.get(f"EWMS_TEST_{place.broker_type.upper()}_ADDRESS"):
        pytest.skip("a server that is not ours is not restarted")
    server = request.getfixturevalue(SERVERS[place.broker_type])
    if place.broker_type == "nats":
        # Else what the killed pilot had, and what was on its way when the server stopped, comes back after 30 s.
        for queue in (place.queue, f"{place.queue}-out"):
            await make_consumer(place.address, place.token, queue, ack_wait=5)
    outputs: Counter[str] = Counter()
    async with place.connect() as broker:
        await put(broker, place.queue, *(events.encode(f"event {n}") for n in range(EVENTS)))
        async with (
            pilot(place, tmp_path / "1"),
            pilot(place, tmp_path / "2") as doomed,
            broker.source(f"{place.queue}-out", prefetch=10) as source,
        ):
            with trio.fail_after(PATIENCE):
                while len(outputs) < EVENTS:
                    delivery = await take(source)
                    outputs[events.decode(delivery.body, None).data] += 1
                    await source.ack(delivery)
                    if outputs.total() == EVENTS // 3:
                        await server.stop()
                        await server.start()
                    if outputs.total() == EVENTS // 2:
                        doomed.kill()
    assert set(outputs) == {f"event {n}" for n in range(EVENTS)}
    # What was in work at the killed pilot, and what had its output but no ack when the broker went.
    assert outputs.total() - EVENTS <= 3 + 6 + 10
