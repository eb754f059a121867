"""Every event has an output, while pilots are killed and evicted and the broker goes away under them.

1,000 events by default; `EWMS_TEST_EVENTS=10000 nox -s integration -- -k under_fire` for the long run.
"""

import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asking
import attrs
import pytest
import trio

from ewms.pilot import events
from ewms.pilot.brokers import open_broker
from ewms.testing import outside
from ewms.testing.grounds import Ground
from ewms.testing.stand import open_stand
from ewms.tms.condor.base import Schedd
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

N_EVENTS: Final = int(os.environ.get("EWMS_TEST_EVENTS", "1000"))
N_PILOTS: Final = 4
"""At a time: a worker asks for a quarter of the machine."""
N_CPUS: Final = 8
STALL_S: Final = 120
"""So long nothing may come out, a broker's restart included."""
KEPT: Final = 3
FAILS_ONE_IN: Final = 30
RUNNING: Final = 2


@attrs.define
class Outputs:
    """What came out: one entry for each output event."""

    received: list[events.Event] = attrs.field(factory=list)
    inputs: set[str] = attrs.field(factory=set)

    async def collect(self, ground: Ground, queue: str) -> None:
        """Take output events for ever, with their headers."""
        async with (
            open_broker(ground.broker_type, ground.broker_address, ground.broker_token) as broker,
            broker.source(queue, prefetch=50) as source,
        ):
            while True:
                delivery = await source.receive()
                if await source.ack(delivery):
                    event = events.decode(delivery.body, delivery.message_id)
                    self.received.append(event)
                    self.inputs.add(event.headers[events.INPUT_EVENT_ID])

    async def until(self, count: int) -> None:
        """Wait until so many inputs have an output."""
        seen, since = -1, trio.current_time()
        while len(self.inputs) < count:
            if len(self.inputs) > seen:
                seen, since = len(self.inputs), trio.current_time()
            assert trio.current_time() - since < STALL_S, f"{seen} of {count} outputs, and no more for {STALL_S} s"
            await trio.sleep(0.05)

    async def until_quiet(self, for_s: float = 3) -> None:
        """Wait until no more come."""
        seen = -1
        while len(self.received) > seen:
            seen = len(self.received)
            await trio.sleep(for_s)


@attrs.define
class Fire:
    """What happens to the pilots of one workflow; `hit` counts the pilots that each kind of accident met."""

    ground: Ground
    marker: str
    taskforce_uuid: str
    schedd: Schedd
    pool: "Pool | None"
    hit: Counter[str] = attrs.field(factory=Counter)
    most_files: int = 0

    @property
    def accidents(self) -> list[Callable[[], Awaitable[None]]]:
        """In this order, spread over the run; an embedded broker cannot be restarted."""
        broker = [self.stop_broker, self.kill_broker] if self.pool else []
        pilots = [self.kill, self.evict] * (self.n_killed)
        third = len(pilots) // 3
        return [*pilots[:third], *broker[:1], *pilots[third:-third], *broker[1:], *pilots[-third:]]

    @property
    def n_killed(self) -> int:
        return max(3, N_EVENTS // 1000)

    async def kill(self) -> None:
        """`kill -9` of one pilot."""
        await outside.until(lambda: outside.pilots(self.marker), "a pilot", within=STALL_S)
        pilot = outside.pilots(self.marker)[0]
        os.kill(pilot.pid, signal.SIGKILL)
        self.hit["killed"] += 1

    async def evict(self) -> None:
        """Vacate one worker, as `condor_vacate_job` does."""
        mine = f'EWMSTaskforceUUID == "{self.taskforce_uuid}" && JobStatus == {RUNNING}'
        with trio.fail_after(STALL_S):
            while not (running := await self.schedd.query(mine, ["ClusterId", "ProcId"])):  # noqa: ASYNC110
                await trio.sleep(0.2)
        ad = running[-1]
        one = f"ClusterId == {ad['ClusterId']} && ProcId == {ad['ProcId']}"
        acted = await self.schedd.act("vacate", one, reason="a test")
        self.hit["evicted"] += acted.succeeded

    async def stop_broker(self) -> None:
        """Restart it in order."""
        await self._restart("stop")

    async def kill_broker(self) -> None:
        """Restart it after a crash."""
        await self._restart("kill")

    async def _restart(self, how: str) -> None:
        assert self.pool is not None
        assert self.pool.broker is not None
        self.hit["cut off from the broker"] += len(outside.pilots(self.marker))
        await (self.pool.broker.stop() if how == "stop" else self.pool.broker.kill())
        await self.pool.broker.start()

    async def watch_files(self) -> None:
        """Look into the pilots' directories for ever."""
        while True:
            for pilot in outside.pilots(self.marker):
                try:
                    found = os.listdir(f"/proc/{pilot.pid}/cwd/ewms-pilot-data")  # noqa: PTH208  it may vanish
                except OSError:
                    continue
                self.most_files = max(self.most_files, len(set(found) - {"data-hub"}))
            await trio.sleep(0.5)


@asynccontextmanager
async def opened_schedd(ground: Ground) -> AsyncIterator[Schedd]:
    helper = ground.tms_settings.get("TMS_SCHEDD_HELPER", f"{ground.python} -m ewms.tms.condor.helper")
    async with open_schedd(ground.command(helper.split())) as schedd:
        yield schedd


async def test_every_event_has_an_output(
    ground: Ground, work_dir: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    pool: Pool | None = request.getfixturevalue("pool") if ground.name == "pool" else None
    marker = f"fire-{uuid.uuid4().hex}"
    before = outside.launchers()
    async with open_stand(ground, work_dir) as stand, stand.tms(), opened_schedd(ground) as schedd:
        workflow = await stand.request(order(ground, marker))
        fire = Fire(ground, marker, workflow.taskforce_uuid, schedd, pool)
        outputs = Outputs()
        await ground.queues.put(workflow.queue_in, [f"event {number}" for number in range(N_EVENTS)])
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outputs.collect, ground, workflow.queue_out)
            nursery.start_soon(fire.watch_files)
            accidents = fire.accidents
            for number, accident in enumerate(accidents, start=1):
                await outputs.until(N_EVENTS * number // (len(accidents) + 1))
                await accident()
            await outputs.until(N_EVENTS)
            took = trio.current_time() - began
            await asking.stopped(stand, workflow)
            await outputs.until_quiet()
            nursery.cancel_scope.cancel()
        left = await left_in(ground, workflow.queue_in)
    duplicates = len(outputs.received) - N_EVENTS
    with capsys.disabled():
        print(
            f"\n  {ground.name}: {N_EVENTS} events in {took:.0f} s; pilots "
            + ", ".join(f"{what}: {count}" for what, count in fire.hit.items())
            + f"; duplicates: {duplicates}; handed back after the end: {left}; task directories: {fire.most_files}"
        )
    assert sorted({event.data for event in outputs.received}) == sorted(f"event {n}" for n in range(N_EVENTS))
    assert len(outputs.inputs) == N_EVENTS
    assert duplicates + left <= fire.hit.total()
    # Who drops what has the id of what he has already, has each output once.
    assert len({(event.event_id, event.data) for event in outputs.received}) == N_EVENTS
    assert len({event.event_id for event in outputs.received}) == N_EVENTS
    await outside.until(lambda: not outside.marked(marker), "without orphans", within=20)
    await outside.until(lambda: set(outside.launchers()) <= set(before), "without launchers", within=20)
    assert 1 < fire.most_files <= 1 + KEPT
    if pool is not None:
        await until_no_sandbox(pool)


def order(ground: Ground, marker: str) -> Any:
    settings: Mapping[str, str | int] = {
        # A container for each event takes a second of this machine's time: that is for other tests.
        "_EWMS_PILOT_CONTAINER_PLATFORM": "process",
        "EWMS_PILOT_STOP_GRACE": 0,
        "EWMS_PILOT_KEEP_FAILED_COUNT": KEPT,
        "EWMS_PILOT_STOP_LISTENING_ON_TASK_ERROR": "no",
    }
    # Some fail, and not the next time: their files are kept.
    fails = f"[ $(($$ % {FAILS_ONE_IN})) = 0 ] && exit 1"
    script = f"sh -c 'sleep 0.05; {fails}; cp {{{{INFILE}}}} {{{{OUTFILE}}}}; : {marker}'"
    # A killed pilot's worker is not run again.
    asked = asking.request(ground, script, workers=N_PILOTS + max(3, N_EVENTS // 1000), **settings)
    return attrs.evolve(asked, worker_config={"n_cores": N_CPUS // N_PILOTS})


async def left_in(ground: Ground, queue: str) -> int:
    """How many events nobody has taken."""
    count = 0
    async with (
        open_broker(ground.broker_type, ground.broker_address, ground.broker_token) as broker,
        broker.source(queue, prefetch=50) as source,
    ):
        with trio.move_on_after(3) as quiet:
            while True:
                await source.ack(await source.receive())
                count += 1
                quiet.deadline = trio.current_time() + 3
    return count


async def until_no_sandbox(pool: "Pool") -> None:
    with trio.fail_after(30):
        while b"dir_" in (await pool.run(["ls", "/var/lib/condor/execute"], user="root")).stdout:  # noqa: ASYNC110
            await trio.sleep(0.5)
