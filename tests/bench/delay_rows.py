"""How soon a TMS acts: a log's line at the WMS, a stop order at the schedd, a large start; and what it costs to wait.

A delay depends on where in an interval it begins. So each figure is the worst of some that begin at even steps.
"""

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import daylog
import trio
from children import figures
from measure import Goal, Row, Setup
from seeding import document, introduce, until
from tms_virtual import World, open_world

from ewms.testing.fakeschedd import Moment

INTERVAL = 1.0
"""Of polls and reports, in s; an operator's are 60 s and 180 s."""
PHASES = 8
UUID, CLUSTER = "TF-known-1", 1


def rows(setup: Setup) -> list[Row]:
    """The rows of a TMS's delays, and of its idle time."""
    days = setup.directory / "thirty-days"
    thirty_days(days, workers=2 if setup.quick else 200)

    def contender(work: Callable[[World, Path], Awaitable[float]]) -> Callable[[], float]:
        return lambda: trio.run(_in_world, setup.directory, work)

    large = partial(large_start, workers=1_000 if setup.quick else 20_000)
    return [
        Row(
            f"a line in the log is at the WMS, interval {INTERVAL} s",
            "ms",
            {"ours, the worst of 8 phases": contender(line_to_wms)},
            [Goal(1000 * INTERVAL + 200)],
            less_is_better=True,
        ),
        Row(
            f"a stop order reaches the schedd, poll {INTERVAL} s",
            "ms",
            {"ours, the worst of 8 phases": contender(stop_to_schedd)},
            [Goal(1000 * INTERVAL + 50)],
            less_is_better=True,
        ),
        Row(
            "20,000 workers: order to confirmation, without the schedd's time",
            "ms",
            {"ours": contender(large), "ours, 2 workers": contender(partial(large_start, workers=2))},
            [Goal(100)],
            less_is_better=True,
        ),
        Row(
            "idle with 30 day logs, ten times an operator's pace",
            "% of a core",
            {"ours": lambda: figures("idle", days, 1 if setup.quick else 20)["percent"]},
            [Goal(0.5)],
            less_is_better=True,
        ),
    ]


async def _in_world(directory: Path, work: Callable[[World, Path], Awaitable[float]]) -> float:
    job_dir = Path(tempfile.mkdtemp(dir=directory))
    log = job_dir / "2026-11-21.tms.jel"
    pace: dict[str, Any] = {"outer_loop_wait": INTERVAL, "watcher_interval": INTERVAL}
    before = partial(introduce, log=log, clusters={UUID: CLUSTER}, workers=PHASES)
    try:
        async with open_world(job_dir, before=before, **pace) as world:
            await world.ctx.outbox.reconciled.wait()
            return await work(world, log)
    finally:
        shutil.rmtree(job_dir)


async def line_to_wms(world: World, _log: Path) -> float:
    """The longest time from a line in the log to a report that has it, in ms."""
    delays = []
    for proc in range(PHASES):
        reported = len(world.network.since(0, "*/statuses/*"))
        world.bench.schedd.write(CLUSTER, "001", proc, "Job executing on host: <127.0.0.1:9618>")
        began = trio.current_time()
        await until(lambda: len(world.network.since(0, "*/statuses/*")) > reported)  # noqa: B023
        await until(lambda: document(world, UUID)["compound_statuses"].get("RUNNING") == {"null": proc + 1})  # noqa: B023
        delays.append(trio.current_time() - began)
        # The next one comes directly after a report, then an eighth of an interval after one, …
        await trio.sleep(INTERVAL * proc / PHASES)
    return 1000 * max(delays)


async def stop_to_schedd(world: World, _log: Path) -> float:
    """The longest time from a stop order to the removal's call, in ms."""
    called = trio.Event()

    async def note(call: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (call, when) == ("act", "before"):
            called.set()

    world.bench.schedd.hook = note
    delays = []
    for phase in range(PHASES):
        uuid = world.bench.order(n_workers=2)
        await until(lambda: document(world, uuid)["cluster_id"] is not None)  # noqa: B023
        await trio.sleep(INTERVAL * phase / PHASES)
        called = trio.Event()
        began = trio.current_time()
        world.bench.stop(uuid)
        await called.wait()
        delays.append(trio.current_time() - began)
    return 1000 * max(delays)


async def large_start(world: World, _log: Path, *, workers: int) -> float:
    """The time from the answer with the order to the confirmation, in ms, without the submit itself."""
    at: dict[Moment, float] = {}

    async def note(call: str, when: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if call == "submit":
            at[when] = trio.current_time()

    world.bench.schedd.hook = note
    before = trio.current_time()
    uuid = world.bench.order(n_workers=workers)
    await until(lambda: document(world, uuid)["cluster_id"] is not None)
    polls = [call.at for call in world.network.since(before, "*/pending-starter/*") if call.at < at["before"]]
    confirmed = world.network.since(at["after"], f"*/condor-submit/taskforces/{uuid}")[0].at
    return 1000 * (confirmed - polls[-1] - (at["after"] - at["before"]))


def thirty_days(directory: Path, workers: int) -> None:
    """A month of logs."""
    directory.mkdir()
    day = directory / "day"
    daylog.write(day, daylog.Day(taskforces=2, workers=workers, updates=0))
    for number in range(30):
        shutil.copy(day, directory / f"2026-11-{number + 1:02d}.tms.jel")
    day.unlink()
