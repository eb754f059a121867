"""The TMS while others are away for a minute: on the embedded ground and on the real pool, whose schedd can be hurt."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from asking import request, until

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import Stand, Workflow, open_stand
from ewms.testing.wms import Fault

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

MINUTE = 60


async def started(stand: Stand, ground: Ground) -> Workflow:
    """A taskforce whose one pilot works on an event."""
    workflow = await stand.request(request(ground, "sleep 1000", workers=1))
    await ground.queues.put(workflow.queue_in, ["one"])
    await until(stand, workflow, lambda t: t["compound_statuses"] == {"RUNNING": {"Tasking": 1}}, "tasking")
    return workflow


async def ended(stand: Stand, workflow: Workflow) -> list[str]:
    """Wait until it is completed; the phases that its log tells of, failed attempts included."""
    taskforce = await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")
    return [
        change["target_phase"] + ("" if change["was_successful"] else " failed")
        for change in taskforce["phase_change_log"]
    ]


async def test_a_minute_without_the_wms(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms() as tms:
        running = await started(stand, ground)
        for path in ("/v1/tms/*", "/v1/taskforces/*", "/auth/*"):  # a user's calls go on
            stand.wms.faults.add(Fault(path=path, drop=True))
        waiting = await stand.request(request(ground, "sleep 1000", workers=1))
        await stand.finish(running)
        await trio.sleep(MINUTE)
        assert tms.returncode is None
        stand.wms.faults.clear()
        assert (await ended(stand, running))[-3:] == ["pending-stopper", "condor-rm", "condor-complete"]
        await until(stand, waiting, lambda t: "RUNNING" in t["compound_statuses"], "running")
        await stand.finish(waiting)
        await ended(stand, waiting)


@asynccontextmanager
async def hurt(pool: "Pool", number: str) -> AsyncIterator[None]:
    """The schedd got a signal; afterwards it goes on."""
    await pool.run(["pkill", f"-{number}", "-x", "condor_schedd"], user="root")
    try:
        yield
    finally:
        with trio.move_on_after(30, shield=True):
            await pool.inside.run(["pkill", "-CONT", "-x", "condor_schedd"], user="root", check=False)


@pytest.mark.pool
@pytest.mark.parametrize("number", ["STOP", "KILL"])
async def test_a_schedd_that_is_silent_or_restarted(pool: "Pool", work_dir: Path, number: str) -> None:
    ground = pool_ground(pool, pool.job_dir.parent)
    async with open_stand(ground, work_dir) as stand, stand.tms(TMS_SCHEDD_TIMEOUT="5") as tms:
        running = await started(stand, ground)
        async with hurt(pool, number):
            waiting = await stand.request(request(ground, "sleep 1000", workers=1))
            await stand.finish(running)
            await trio.sleep(MINUTE / 2)
            assert tms.returncode is None
        assert (await ended(stand, running))[-3:] == ["pending-stopper", "condor-rm", "condor-complete"]
        await until(stand, waiting, lambda t: "RUNNING" in t["compound_statuses"], "running")
        await stand.finish(waiting)
        phases = await ended(stand, waiting)
        assert phases.count("condor-submit") == 1
        assert not [phase for phase in phases if phase.endswith("failed")]
