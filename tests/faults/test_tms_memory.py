"""What is over is given back: after many taskforces the TMS is as small as before them."""

from collections.abc import Sized
from pathlib import Path

import pytest
import trio
import trio.testing
from tms_bench import Bench
from tms_virtual import open_world

from ewms.tms.board import Board
from ewms.tms.outbox import Outbox
from ewms.wms.models import Phase

TASKFORCES = 200
REFUSED = 10
LONG = 1e6


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Threads read and write small files meanwhile: they get a little real time before the clock jumps."""
    return trio.testing.MockClock(autojump_threshold=0.004)


def kept(owner: Board | Outbox) -> int:
    """How many things it holds; a board's tallies go with their logs."""
    return sum(len(each) for name, each in vars(owner).items() if isinstance(each, Sized) and name != "_tallies")


def failures(bench: Bench, uuid: str) -> list[str]:
    return [each.context for each in bench.taskforce(uuid).phase_change_log if not each.was_successful]


async def test_taskforces_that_were_started_and_ended_leave_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path) as world:
        bench, ctx = world.bench, world.ctx
        refused = [bench.order(worker_memory="junk") for _ in range(REFUSED)]
        uuids = [bench.order(n_workers=1) for _ in range(TASKFORCES)]
        await world.until(lambda: all(bench.taskforce(uuid).compound_statuses for uuid in uuids), LONG)
        await world.until(lambda: all(len(failures(bench, uuid)) == 3 for uuid in refused), LONG)
        for uuid in uuids[::2]:
            bench.stop(uuid)
        for cluster in bench.schedd.queued[1::2]:
            bench.schedd.finish(cluster.cluster_id)
        await world.until(lambda: all(bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE for uuid in uuids), LONG)
        await world.until(lambda: not kept(ctx.outbox) and not kept(ctx.board), LONG)
