"""What must be measured in a process of its own: `python children.py NAME ARGUMENTS` prints its figures."""

import ctypes
import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import daylog
import structlog
import trio
from seeding import introduce, until
from tms_virtual import World, open_world

from ewms.tms.eventlog.reader import Position, read_on
from ewms.tms.eventlog.tally import Tally
from ewms.tms.sites import SiteTally

DAY = datetime.fromtimestamp(daylog.START, UTC).date()
LOG = f"{DAY}.tms.jel"
_PER_CLUSTER = 20_000


Result = dict[str, float]


def figures(name: str, *arguments: object) -> Result:
    """Run one of these in a new process; what it prints."""
    command = [sys.executable, __file__, name, *map(str, arguments)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {str(key): float(value) for key, value in found.items()}


# --- one log ---


def read(path: str, *sites: str) -> Result:
    """Seconds on the processor for reading and tallying a log; with `sites` also for counting failures by site."""
    started = time.process_time()
    tally(Path(path), SiteTally() if sites else None)
    return {"on the processor": time.process_time() - started}


def tally(path: Path, sites: SiteTally | None = None) -> Tally:
    """All of a log, in the watcher's own batches."""
    result, position, more = Tally(DAY), Position(), True
    while more:
        piece = read_on(path, position)
        found = result.feed(piece.data)
        if sites is not None:
            sites.take(found, DAY)
        position, more = piece.position, piece.more
    return result


# --- a whole TMS, from the start of its process ---


def first_report(directory: str) -> Result:
    """Seconds from a TMS's start, everything imported, until the WMS knows of all taskforces of a day's log."""
    uuids = {cluster: daylog.uuid_of(cluster) for cluster in range(101, 121)}

    async def until_told(world: World, started: Moment) -> Result:
        documents = world.bench.standin.state.taskforce_document
        await until(lambda: all(documents(uuid)["compound_statuses"] for uuid in uuids.values()))
        now = moment()
        return {"passed": now.wall - started.wall, "on the processor": now.cpu - started.cpu}

    return trio.run(_in_world, Path(directory), uuids, until_told)


def idle(directory: str, seconds: str) -> Result:
    """Percent of a core that a TMS needs when nothing happens, with ten times an operator's pace.

    So that the time that is looked at has polls and reports in it.
    """

    async def rest(_world: World, _started: Moment) -> Result:
        await trio.sleep(3)  # what a start still does
        used = time.process_time()
        await trio.sleep(float(seconds))
        return {"percent": 100 * (time.process_time() - used) / float(seconds)}

    return trio.run(_in_world, Path(directory), {}, rest, {"outer_loop_wait": 6, "watcher_interval": 18})


class Moment(NamedTuple):
    """Two clocks, in s."""

    wall: float
    cpu: float


def moment() -> Moment:
    return Moment(time.perf_counter(), time.process_time())


async def _in_world(
    directory: Path,
    uuids: dict[int, str],
    work: Callable[[World, Moment], Awaitable[Result]],
    pace: Mapping[str, Any] = MappingProxyType({}),
) -> Result:
    started = moment()

    def seed(world: World) -> None:
        nonlocal started
        introduce(world, directory / LOG, {uuid: cluster for cluster, uuid in uuids.items()}, workers=1000)
        started = moment()

    async with open_world(directory, before=seed, **pace) as world:
        return await work(world, started)


# --- memory ---


def memory(jobs: str) -> Result:
    """Resident bytes per job: that lives, and that stay when it ended; free pages are given to the system first."""

    def feed(pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            sites.take(tally.feed(piece), DAY)

    tally, sites = Tally(DAY), SiteTally()
    feed(living(25_000))  # fills the caches, which are bounded
    tally, sites = Tally(DAY), SiteTally()
    before = _resident()
    feed(living(int(jobs)))
    alive = _resident()
    feed(ending(int(jobs)))
    return {"living": (alive - before) / int(jobs), "ended": (_resident() - before) / int(jobs)}


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def living(jobs: int) -> Iterator[bytes]:
    """Events of jobs that run, in clusters of 20,000; each fifth has told an error."""
    for first in range(0, jobs, 1000):
        cluster = 201 + first // _PER_CLUSTER
        texts = []
        for proc in range(first % _PER_CLUSTER, min(jobs, first + 1000) - first + first % _PER_CLUSTER):
            texts += [
                ("000", proc, f"Job submitted from host: <x>\n    EWMSTaskforceUUID={daylog.uuid_of(cluster)}"),
                ("001", proc, f"Job executing on host: <x>\n\tSlotName: slot1_1@{host(proc)}"),
                ("008", proc, f'HTChirpEWMSPilotSite: "Site{proc % 40}"'),
                ("008", proc, f'HTChirpEWMSPilotHost: "{host(proc)}"'),
                ("008", proc, 'HTChirpEWMSPilotStatus: "Tasking"'),
            ]
            if proc % 5 == 0:
                texts.append(("008", proc, f'HTChirpEWMSPilotError: "task failed (exit code 1): bad frame {proc}"'))
        yield _events(cluster, texts)


def host(proc: int) -> str:
    return f"ep{proc % 400}.example.org"


def ending(jobs: int) -> Iterator[bytes]:
    """The ends of these jobs and clusters."""
    for first in range(0, jobs, _PER_CLUSTER):
        cluster = 201 + first // _PER_CLUSTER
        for begin in range(0, _PER_CLUSTER, 1000):
            yield _events(cluster, [("009", proc, "Job was aborted.") for proc in range(begin, begin + 1000)])
        yield _events(cluster, [("036", -1, "Cluster removed")])


def _events(cluster: int, texts: list[tuple[str, int, str]]) -> bytes:
    when = f"{DAY} 10:00:00Z"
    return "".join(f"{number} ({cluster}.{proc:03d}.000) {when} {text}\n...\n" for number, proc, text in texts).encode()


NAMES: dict[str, Callable[..., Result]] = {
    "read": read,
    "first_report": first_report,
    "idle": idle,
    "memory": memory,
}

if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    name, *arguments = sys.argv[1:]
    print(json.dumps(NAMES[name](*arguments)))
