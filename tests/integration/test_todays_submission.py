"""A submission of the TMS that is in production now, with our pilot in its place: what it captured runs unchanged.

The captured text names places that do not exist here; only those are put in: the job directory, the broker, its token.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from ewms.contract import ENVFILE_NAME
from ewms.testing.grounds import pool_ground
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

CAPTURED: Final = Path(__file__).parents[1] / "data" / "todays-tms"
WORKFLOW: Final = "WF-6b021e20-4759eae9"
TASKFORCE: Final = "TF-6b021e20-4759eae9-2ac038aa-8dcf0b99"
IMAGE: Final = "/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/ewms-pilot:1.2.0"
EVENTS: Final = 30


async def test_todays_submission_runs_our_pilot(pool: "Pool") -> None:
    ground = pool_ground(pool, pool.job_dir.parent)
    jobs = pool.job_dir / "todays"
    places = {
        "/scratch/jobs": str(jobs),
        "broker.example.org": pool.broker_address,
        "TOKEN-FOR-TESTS": pool.broker_token.reveal(),
    }
    await visible_as(pool, f"{pool.pilot_image_base}:{pool.pilot_tag}", IMAGE)
    await visible_as(pool, pool.task_image, "/images/init:1")
    directory = jobs / f"ewms-taskforce-{TASKFORCE}"
    await pool.run(["mkdir", "--parents", str(directory)])
    envfile = with_places((CAPTURED / ENVFILE_NAME).read_text(), places)
    private = str(directory / ENVFILE_NAME)
    await pool.run(["install", "--mode=600", "/dev/null", private])
    await pool.run(["tee", private], stdin=envfile.encode())
    description = json.loads(with_places((CAPTURED / "submit-description.json").read_text(), places))
    # The cluster's number is in those paths, and their directory would have to be there before it is known.
    description |= {name: str(directory / f"$(ProcId).{name}") for name in ("output", "error")}

    await ground.queues.put(f"{WORKFLOW}-in", [f"a{n}" for n in range(EVENTS)])
    await ground.queues.put(f"{WORKFLOW}-in2", [f"b{n}" for n in range(EVENTS)])
    results: list[Any] = []
    async with open_schedd(ground.command([ground.python, "-m", "ewms.tms.condor.helper"])) as schedd:
        submitted = await schedd.submit(description, count=4)
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
    for path in [*directory.glob("*.output"), *directory.glob("*.error")]:
        assert pool.broker_token.reveal().encode() not in path.read_bytes(), path


async def visible_as(pool: "Pool", image: str, path: str) -> None:
    await pool.run(["mkdir", "--parents", path], user="root")
    await pool.run(["mount", "--bind", image, path], user="root")


def with_places(text: str, places: dict[str, str]) -> str:
    for captured, here in places.items():
        text = text.replace(captured, here)
    return text
