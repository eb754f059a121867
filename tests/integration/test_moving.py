"""An access point moves from today's TMS to ours, with taskforces alive, and back (docs/moving.md)."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, stopped, until
from todays import open_todays_tms

from ewms.contract import ENVFILE_NAME, taskforce_dir_name
from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import Workflow, open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import Pool
    from ewms.testing.pool.pypi import PypiPilot

pytestmark = pytest.mark.pool

READER = Path(__file__).with_name("todays_reader.py")
COPY = "cp {{INFILE}} {{OUTFILE}}"
EAGER = {"TASKFORCE_DIRS_EXPIRY": "0", "TMS_FILE_MANAGER_INTERVAL": "1"}
"""Housekeeping that would take every directory at once, if age alone decided."""


@pytest.fixture
async def ground(pool: "Pool", work_dir: Path) -> Ground:
    """The pool, with a job directory of this test's own."""
    job_dir = pool.job_dir / work_dir.name
    await pool.run(["mkdir", str(job_dir)])
    return attrs.evolve(pool_ground(pool, pool.job_dir.parent), job_dir=job_dir)


async def test_our_tms_takes_over_what_todays_left(
    pool: "Pool", ground: Ground, todays_image: str, work_dir: Path
) -> None:
    async with open_stand(ground, work_dir) as stand, open_todays_tms(pool, ground, stand, todays_image) as todays:
        living = await stand.request(request(ground, COPY))
        cluster = await todays.submit(living)
        await todays.confirm(living, cluster)
        halfway = await stand.request(request(ground, COPY, workers=1, EWMS_PILOT_TIMEOUT_QUEUE_INCOMING=5))
        unconfirmed = await todays.submit(halfway)  # and here it ended
        await ground.queues.put(living.queue_in, ["one", "two"])
        await ground.queues.put(halfway.queue_in, ["three"])
        async with stand.tms(**EAGER):
            seen = await until(stand, living, is_tasking, "tasking")
            assert seen["cluster_id"] == cluster
            done = await until(stand, halfway, lambda t: t["phase"] == "condor-complete", "condor-complete")
            assert done["cluster_id"] == unconfirmed
            assert done["job_event_log_fpath"] == str(todays.log)
            assert done["compound_statuses"] == {"COMPLETED": {"Done": 1}}
            assert await todays.clusters_of(living) == [cluster]
            assert (directory_of(ground, living) / ENVFILE_NAME).is_file(), "a living cluster's directory is left alone"

            results: list[Any] = []
            with trio.fail_after(DEADLINE_S):
                await ground.queues.get(living.queue_out, 2, results.append)
            assert sorted(results) == ["one", "two"]
            removed = await stopped(stand, living)
            assert removed["compound_statuses"].keys() == {"REMOVED"}
            assert await todays.clusters_of(living) == []
            await archived(ground, living)
    assert todays.log.read_bytes().count(b"\n028 (")


async def test_it_goes_back_and_comes_again(
    pool: "Pool", ground: Ground, todays_pilot: "PypiPilot", work_dir: Path
) -> None:
    async with open_stand(ground, work_dir) as stand, open_todays_tms(pool, ground, stand, "") as todays:
        async with stand.tms():
            workflow = await stand.request(request(ground, COPY))
            await ground.queues.put(workflow.queue_in, ["one"])
            told = await until(stand, workflow, is_tasking, "tasking")
            cluster = told["cluster_id"]
        # What today's asks the WMS for tells it where to read, and who that is.
        query = {"job_event_log_fpath": told["job_event_log_fpath"], "phase": {"$ne": "condor-complete"}}
        asked = {"query": query, "projection": ["taskforce_uuid", "cluster_id"]}
        (listed,) = (await stand.call("POST", "/v1/query/taskforces", asked))["taskforces"]
        assert listed == {"taskforce_uuid": workflow.taskforce_uuid, "cluster_id": cluster}
        log = Path(told["job_event_log_fpath"])
        assert log.parent == ground.job_dir
        assert await todays.clusters_of(workflow) == [cluster], "the end of our TMS touches no cluster"
        read = as_todays_reads(todays_pilot, log)[str(cluster)]
        assert read["ended"] is None
        assert sum(read["statuses"]["RUNNING"].values()) == 2

        await stand.finish(workflow)
        await todays.stop(workflow)
        ended = await the_end(todays_pilot, log, cluster)
        await todays.complete(workflow, ended)
        before = await stand.taskforce(workflow)

        async with stand.tms():
            last = await stand.request(request(ground, COPY, workers=1, EWMS_PILOT_TIMEOUT_QUEUE_INCOMING=5))
            await until(stand, last, lambda t: t["phase"] == "condor-complete", "condor-complete")
        after = await stand.taskforce(workflow)
        assert after["phase_change_log"] == before["phase_change_log"], "what today's TMS said is not said again"


def is_tasking(taskforce: Any) -> bool:
    """Both workers run, and one had an event."""
    running = taskforce["compound_statuses"].get("RUNNING", {})
    return "Tasking" in running and sum(running.values()) == 2


def directory_of(ground: Ground, workflow: Workflow) -> Path:
    return ground.job_dir / taskforce_dir_name(workflow.taskforce_uuid)


async def archived(ground: Ground, workflow: Workflow) -> None:
    directory = directory_of(ground, workflow)
    with trio.fail_after(DEADLINE_S):
        while directory.exists() or not directory.with_name(f"{directory.name}.tar.gz").exists():  # noqa: ASYNC110  nothing tells
            await trio.sleep(0.2)


def as_todays_reads(pypi: "PypiPilot", log: Path) -> dict[str, Any]:
    python, environment = pypi.command_here
    command = [python, str(READER), str(log)]
    done = subprocess.run(command, env=dict(environment), check=True, capture_output=True)
    read: dict[str, Any] = json.loads(done.stdout)
    return read


async def the_end(pypi: "PypiPilot", log: Path, cluster: int) -> int:
    """When the cluster ended; it takes as long as its pilots do."""
    with trio.fail_after(DEADLINE_S):
        while (ended := as_todays_reads(pypi, log)[str(cluster)]["ended"]) is None:  # noqa: ASYNC110
            await trio.sleep(0.5)
    return int(ended)
