"""Real pilots at work while the broker is restarted and one of them is killed: every event has its output."""

import os
from collections import Counter
from pathlib import Path

import pytest
import trio
from broker_pilots import PATIENCE, SERVERS, pilot
from broker_places import REAL_PARAMS, Place, put, take
from nats_admin import make_consumer

from ewms.pilot import events

EVENTS = 40
SCRIPT = "sleep 0.3; cp $1 $2"


@pytest.mark.parametrize("place", REAL_PARAMS, indirect=True)
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
            pilot(place, tmp_path / "1", SCRIPT),
            pilot(place, tmp_path / "2", SCRIPT) as doomed,
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
