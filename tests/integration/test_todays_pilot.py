"""Our TMS with the pilots of production: it starts PyPI's `ewms-pilot`, understands its chirps, and stops it."""

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, stopped, until

from ewms.contract import PilotStatus
from ewms.testing.grounds import pool_ground
from ewms.testing.stand import open_stand

if TYPE_CHECKING:
    from pathlib import Path

    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

EVENTS = 8


async def test_our_tms_starts_and_stops_todays_pilot(pool: "Pool", todays_image: str, work_dir: "Path") -> None:
    base, _, tag = todays_image.rpartition(":")
    ours = pool_ground(pool, pool.job_dir.parent)
    ground = attrs.evolve(
        ours,
        tms_settings={**ours.tms_settings, "CVMFS_PILOT_PATH": base},
        pilot_config={**ours.pilot_config, "tag": tag},
    )
    async with open_stand(ground, work_dir) as stand, stand.tms():
        good = await stand.request(request(ground, "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'"))
        bad = await stand.request(request(ground, "sh -c 'echo no such detector >&2; exit 3'", workers=1))
        await ground.queues.put(good.queue_in, [f"event {number}" for number in range(EVENTS)])
        await ground.queues.put(bad.queue_in, ["event"])
        results: list[Any] = []
        with trio.fail_after(DEADLINE_S):
            await ground.queues.get(good.queue_out, EVENTS, results.append)
        assert sorted(results) == [f"EVENT {number}" for number in range(EVENTS)]

        taskforce = await until(
            stand, good, lambda t: "Tasking" in t["compound_statuses"].get("RUNNING", {}), "tasking"
        )
        assert taskforce["compound_statuses"]["RUNNING"].keys() <= {*PilotStatus, "null"}
        failed = await until(stand, bad, lambda t: t["phase"] == "condor-complete", "condor-complete")
        assert failed["compound_statuses"] == {"COMPLETED": {"FatalError": 1}}
        (error,) = failed["top_task_errors"]
        assert "no such detector" in error

        removed = await stopped(stand, good)
        assert removed["compound_statuses"].keys() == {"REMOVED"}
        targets = [change["target_phase"] for change in removed["phase_change_log"]]
        assert targets[-3:] == ["pending-stopper", "condor-rm", "condor-complete"]
