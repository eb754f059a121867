"""One TMS with many taskforces in compressed time: `python -m tests.load.taskforces WAVES TASKFORCES WORKERS`.

The WMS is the stand-in behind a network in memory, the schedd is one in memory that writes a true job event log, and
the clock is virtual: hours of a TMS take minutes. Each wave's taskforces are ordered, confirmed, run, chirp and end;
half of them are stopped by their users. A wave is a day: its log goes at its end, and then the TMS should be as small
as after the last one.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import trio
from tms_virtual import World, open_world
from trio.testing import MockClock

from ewms.wms.models import Phase
from tests.load.sampling import tell

_LONG_S = 1e7
_EVENTS = (("001", "Job executing on host: <127.0.0.1:9618>"), ("008", 'HTChirpEWMSPilotStatus: "Tasking"'))


async def main(waves: int, taskforces: int, workers: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ewms-load-") as directory:
        async with open_world(Path(directory)) as world:
            for wave in range(waves):
                await one_wave(world, taskforces, workers)
                tell(began, (wave + 1) * taskforces)


async def one_wave(world: World, taskforces: int, workers: int) -> None:
    bench = world.bench
    uuids = [bench.order(n_workers=workers) for _ in range(taskforces)]
    await world.until(lambda: all(bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT for uuid in uuids), _LONG_S)
    clusters = [each.cluster_id for each in bench.schedd.queued]
    for number, text in _EVENTS:
        for cluster in clusters:
            _write(world, cluster, number, workers, text)
    await world.until(lambda: all(bench.taskforce(uuid).compound_statuses for uuid in uuids), _LONG_S)
    for uuid in uuids[::2]:
        bench.stop(uuid)
    for cluster in clusters[1::2]:
        bench.schedd.finish(cluster)
    await world.until(lambda: all(bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE for uuid in uuids), _LONG_S)
    await world.until(lambda: not world.ctx.outbox.counts(), _LONG_S)
    for log in {cluster.log_path for cluster in world.bench.schedd.clusters.values()}:
        log.unlink()
    await world.until(lambda: not world.ctx.board._tallies, _LONG_S)
    _forget(world)


def _forget(world: World) -> None:
    """What the stand-ins keep in this process of taskforces that are over; it is the TMS that is looked at."""
    world.network.calls.clear()
    world.bench.schedd.calls.clear()
    world.bench.schedd.clusters.clear()
    store = world.bench.standin.state.store
    for documents in store._documents.values():
        documents.clear()


def _write(world: World, cluster: int, number: str, workers: int, text: str) -> None:
    """At once for all workers: a file opened for each event would take longer than the TMS."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    events = "".join(f"{number} ({cluster:03d}.{proc:03d}.000) {moment} {text}\n...\n" for proc in range(workers))
    with world.bench.schedd.clusters[cluster].log_path.open("a") as log:
        log.write(events)


def _silence(_logger: object, _method: str, _event: structlog.types.EventDict) -> structlog.types.EventDict:
    raise structlog.DropEvent


def command(numbers: Sequence[str]) -> None:
    """See above."""
    structlog.configure(processors=[_silence])
    waves, taskforces, workers = map(int, numbers)
    trio.run(main, waves, taskforces, workers, clock=MockClock(autojump_threshold=0.004))


if __name__ == "__main__":
    command(sys.argv[1:])
