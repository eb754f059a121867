"""A submission of the TMS that is in production now, with our pilot in its place: what it captured runs unchanged."""

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from todays import IMAGE, INIT_IMAGE, TASKFORCE, WORKFLOW, captured, description, places_here, visible_as, write_envfile

from ewms.contract import ENVFILE_NAME, taskforce_dir_name
from ewms.testing.grounds import pool_ground
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

EVENTS: Final = 30


async def test_todays_submission_runs_our_pilot(pool: "Pool") -> None:
    ground = pool_ground(pool, pool.job_dir.parent)
    jobs = pool.job_dir / "todays"
    places = places_here(pool, jobs)
    await visible_as(pool, f"{pool.pilot_image_base}:{pool.pilot_tag}", IMAGE)
    await visible_as(pool, pool.task_image, INIT_IMAGE)
    directory = jobs / taskforce_dir_name(TASKFORCE)
    await write_envfile(pool, directory, captured(ENVFILE_NAME, places))

    await ground.queues.put(f"{WORKFLOW}-in", [f"a{n}" for n in range(EVENTS)])
    await ground.queues.put(f"{WORKFLOW}-in2", [f"b{n}" for n in range(EVENTS)])
    results: list[Any] = []
    async with open_schedd(ground.command([ground.python, "-m", "ewms.tms.condor.helper"])) as schedd:
        submitted = await schedd.submit(description(places, directory), count=4)
        with trio.fail_after(180):
            await ground.queues.get(f"{WORKFLOW}-out", 2 * EVENTS, results.append)
            while await schedd.query(f"ClusterId == {submitted.cluster_id}", ["ProcId"]):  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.5)
    assert sorted(results) == sorted(f"{queue}{n}" for queue in "ab" for n in range(EVENTS))

    (log,) = jobs.glob("*.jel")
    said = json.loads((await pool.run([pool.python, "-m", "ewms", "log", "--json", str(log)])).stdout)
    mine = said["taskforces"][TASKFORCE]
    assert mine == {
        "cluster_id": submitted.cluster_id,
        "compound_statuses": {"COMPLETED": {"Done": 4}},
        "top_task_errors": {},
        "complete": True,
    }
    assert said["damaged"] == 0
    assert b"\n028 (" in log.read_bytes(), "today's TMS asks for job ads in the log"
    outputs = [directory / f"{worker}.{name}" for worker in range(4) for name in ("output", "error")]
    for path in outputs:
        assert pool.broker_token.reveal().encode() not in path.read_bytes(), path
