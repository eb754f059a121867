"""The broker is restarted while long tasks run: pilots keep them, and publish when it is back."""

import os
from collections import Counter
from pathlib import Path

import attrs
import pytest
import trio
from broker_pilots import SERVERS, pilot
from broker_places import REAL_PARAMS, Place, put
from nats_admin import make_consumer

from ewms.pilot import events
from ewms.testing.broker import BrokerServer

SLOTS = 3
PATIENCE = 120
QUIET = {"TIMEOUT_QUEUE_INCOMING": "3"}
# Tells that it runs; and ends only when it is let go, a little later.
SCRIPT = "echo $(cat $1) >> DIR/runs; while [ ! -e DIR/go-on ]; do sleep 0.1; done; sleep 0.5; cp $1 $2"


@pytest.fixture
def server(place: Place, request: pytest.FixtureRequest) -> BrokerServer:
    if os.environ.get(f"EWMS_TEST_{place.broker_type.upper()}_ADDRESS"):
        pytest.skip("a server that is not ours is not restarted")
    started: BrokerServer = request.getfixturevalue(SERVERS[place.broker_type])
    return started


@attrs.frozen
class Tasks:
    """What tasks of this test did; each of them ends only when it is let go."""

    directory: Path

    @property
    def script(self) -> str:
        return SCRIPT.replace("DIR", str(self.directory))

    def runs(self) -> Counter[str]:
        """How often each event was run."""
        runs = self.directory / "runs"
        return Counter(runs.read_text().splitlines() if runs.exists() else [])

    async def until_running(self, count: int) -> None:
        with trio.fail_after(PATIENCE):
            while self.runs().total() < count:  # noqa: ASYNC110  other processes set no events
                await trio.sleep(0.1)

    def go_on(self) -> None:
        (self.directory / "go-on").touch()


async def outputs_of(place: Place) -> list[events.Event]:
    """What is in the outgoing queue."""
    found: list[events.Event] = []
    async with place.connect() as broker, broker.source(f"{place.queue}-out", prefetch=10) as source:
        while True:
            with trio.move_on_after(2):
                delivery = await source.receive()
                found.append(events.decode(delivery.body, delivery.message_id))
                await source.ack(delivery)
                continue
            return found


@pytest.mark.parametrize("place", REAL_PARAMS, indirect=True)
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_pilot_keeps_its_long_tasks_through_a_restart_and_runs_none_twice(
    place: Place, server: BrokerServer, tmp_path: Path, how: str
) -> None:
    tasks = Tasks(tmp_path)
    names = [f"event {n}" for n in range(2 * SLOTS)]
    await put_all(place, names)
    async with pilot(place, tmp_path / "1", tasks.script, **QUIET) as process:
        await tasks.until_running(SLOTS)
        await restart(server, how)
        tasks.go_on()
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    outputs = await outputs_of(place)
    assert tasks.runs() == dict.fromkeys(names, 1)
    assert sorted(event.data for event in outputs) == names


@pytest.mark.parametrize("place", REAL_PARAMS, indirect=True)
async def test_what_two_pilots_run_twice_after_a_restart_is_known_by_its_id(
    place: Place, server: BrokerServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The broker may give an event that came back to the other pilot, which cannot know that it still runs."""
    tasks = Tasks(tmp_path)
    names = [f"event {n}" for n in range(4 * SLOTS)]
    await put_all(place, names)
    async with (
        pilot(place, tmp_path / "1", tasks.script, **QUIET) as one,
        pilot(place, tmp_path / "2", tasks.script, **QUIET) as other,
    ):
        await tasks.until_running(2 * SLOTS)
        await restart(server, "kill")
        tasks.go_on()
        with trio.fail_after(PATIENCE):
            assert (await one.wait(), await other.wait()) == (0, 0)
    outputs = await outputs_of(place)
    duplicates = len(outputs) - len(names)
    with capsys.disabled():
        print(
            f"\n  {place.broker_type}: {2 * SLOTS} events in work when the broker was killed; run twice: {duplicates}"
        )
    assert {event.data for event in outputs} == set(names)
    assert tasks.runs().total() == len(outputs)
    assert duplicates <= 2 * SLOTS
    assert len({event.event_id for event in outputs}) == len(names)


async def put_all(place: Place, names: list[str]) -> None:
    if place.broker_type == "nats":
        for queue in (place.queue, f"{place.queue}-out"):
            await make_consumer(place.address, place.token, queue, ack_wait=30)
    async with place.connect() as broker:
        await put(broker, place.queue, *(events.encode(f"{name}") for name in names))
    # RabbitMQ 4.3 syncs its list of quorum queues now and then: one that is younger comes back empty.
    await trio.sleep(6 if place.broker_type == "rabbitmq" else 0)


async def restart(server: BrokerServer, how: str) -> None:
    await (server.stop() if how == "stop" else server.kill())
    await trio.sleep(1)
    await server.start()
