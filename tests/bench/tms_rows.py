"""Rounds of a whole TMS that knows 5,000 taskforces, against the same with few: what it costs must not depend on that.

The WMS stand-in answers in memory, the schedd too; so these are the TMS's own costs, the disk's syncs, and the
stand-in's, whose search for the next order is linear.

What a round must cost: of a start four calls to the WMS (next order, re-check, confirm, and the one that finds nothing
more), one look into the queue, the parsing of its expressions, one submit, four small files synced to disk; of a stop
three calls and one removal; of a report one call for each 500 changed taskforces. Nothing waits between two orders.
"""

import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import delay_rows
import structlog
import trio
from measure import Contender, Goal, Row, Setup
from seeding import document, introduce, until
from tms_virtual import World, open_world

JOBS = 20
"""Workers of each taskforce."""
DAYS = 5
"""Logs that they are in."""
FEW = 100
QUIET = 5
"""Seconds in which nothing happens."""

Work = Callable[[World, list[str], int], Awaitable[None]]
Clock = Callable[[], float]


def rows(setup: Setup) -> list[Row]:
    """The rows of this group."""
    known, starts, stops = (200, 10, 5) if setup.quick else (5_000, 200, 100)
    # Whatever is logged on the way is not what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def row(name: str, unit: str, units: int, work: Work, clock: Clock, *goals: Goal) -> Row:
        def contender(count: int) -> Contender:
            return lambda: 1000 * trio.run(run, setup.directory, count, work, units, clock) / units

        return Row(name, unit, {_known(count): contender(count) for count in (known, FEW)}, goals, less_is_better=True)

    pace = Goal(50)  # 20 pending taskforces a second
    return [
        row("start orders drained", "ms each", starts, drain_starts, time.perf_counter, pace),
        row("stop orders carried out and completed", "ms each", stops, drain_stops, time.perf_counter),
        row("a change in each log and its report, CPU", "ms each", 3, report_changes, time.process_time),
        row("nothing happens, CPU", "ms per s", QUIET, be_quiet, time.process_time),
        *delay_rows.rows(setup),
    ]


def _known(count: int) -> str:
    return f"{count:,} taskforces known"


async def run(directory: Path, known: int, work: Work, units: int, clock: Clock) -> float:
    """The seconds that `work` takes for a TMS that knows so many running taskforces and has told all about them."""
    with tempfile.TemporaryDirectory(dir=directory) as job_dir:
        seeded: list[str] = []

        def seed(world: World) -> None:
            seeded.extend(known_taskforces(world, Path(job_dir), known))

        pace: dict[str, Any] = {"outer_loop_wait": 1.0, "watcher_interval": 1.0}  # an operator's is 60 s and 180 s
        async with open_world(Path(job_dir), before=seed, **pace) as world:
            await until(lambda: all(document(world, uuid)["compound_statuses"] for uuid in seeded))
            started = clock()
            await work(world, seeded, units)
            return clock() - started


# --- the work ---


async def drain_starts(world: World, _known: list[str], count: int) -> None:
    new = [world.bench.order(n_workers=JOBS) for _ in range(count)]
    await until(lambda: document(world, new[-1])["cluster_id"] is not None)


async def drain_stops(world: World, known: list[str], count: int) -> None:
    stopped = known[:count]
    for uuid in stopped:
        world.bench.stop(uuid)
    await until(lambda: all(document(world, uuid)["phase"] == "condor-complete" for uuid in stopped))


async def report_changes(world: World, known: list[str], rounds: int) -> None:
    for proc in range(rounds):
        for cluster_id in range(1, 6):
            world.bench.schedd.write(cluster_id, "001", proc, "Job executing on host: <127.0.0.1:9618>")
        await until(partial(has_running, world, known[0], proc + 1), every=0.1)  # asking costs, too


async def be_quiet(_world: World, _known: list[str], seconds: int) -> None:
    await trio.sleep(seconds)


def has_running(world: World, uuid: str, count: int) -> bool:
    return bool(document(world, uuid)["compound_statuses"].get("RUNNING") == {"null": count})


# --- what is known already ---


def known_taskforces(world: World, job_dir: Path, count: int) -> list[str]:
    """Running taskforces, as the WMS, the ledger, the schedd and the logs of five days know them."""
    clusters = {f"TF-known-{cluster_id}": cluster_id for cluster_id in range(1, count + 1)}
    for day in range(DAYS):
        log = job_dir / f"2026-11-{10 + day}.tms.jel"
        there = {uuid: cluster_id for uuid, cluster_id in clusters.items() if cluster_id % DAYS == day}
        introduce(world, log, there, workers=JOBS)
        log.write_text(
            "".join(event for uuid, cluster_id in there.items() for event in submit_events(cluster_id, uuid))
        )
    return list(clusters)


def submit_events(cluster_id: int, uuid: str) -> list[str]:
    note = f"    EWMSTaskforceUUID={uuid}\n...\n"
    when = "2026-11-10 10:00:00"
    return [
        f"035 ({cluster_id:03d}.-01.000) {when} Cluster submitted from host: <127.0.0.1:9618>\n{note}",
        *(
            f"000 ({cluster_id:03d}.{proc:03d}.000) {when} Job submitted from host: <127.0.0.1:9618>\n{note}"
            for proc in range(JOBS)
        ),
    ]
