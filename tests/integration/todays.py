"""Production's present TMS, played again from what was captured of it: the envfile and the submit description it made.

The captured texts name places that do not exist here; only those are put in: directories, image, broker, token, queues.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.contract import ENVFILE_NAME, taskforce_dir_name
from ewms.testing.grounds import SCHEDD_NAME, Ground
from ewms.testing.pool import Pool
from ewms.testing.stand import Stand, Workflow
from ewms.tms.condor.base import Schedd
from ewms.tms.condor.schedd import open_schedd

CAPTURED: Final = Path(__file__).parents[1] / "data" / "todays-tms"
TASKFORCE: Final = "TF-6b021e20-4759eae9-2ac038aa-8dcf0b99"
WORKFLOW: Final = "WF-6b021e20-4759eae9"
IMAGE: Final = "/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/ewms-pilot:1.2.0"
INIT_IMAGE: Final = "/images/init:1"
DAY_LOG: Final = "2026-11-21.tms.jel"


def places_here(pool: Pool, job_dir: Path) -> dict[str, str]:
    """The captured text → what stands for it in this pool."""
    return {
        "/scratch/jobs": str(job_dir),
        "broker.example.org": pool.broker_address,
        "TOKEN-FOR-TESTS": pool.broker_token.reveal(),
    }


def with_places(text: str, places: Mapping[str, str]) -> str:
    """The text with each place put in, one after the other."""
    for captured, here in places.items():
        text = text.replace(captured, here)
    return text


def captured(name: str, places: Mapping[str, str]) -> str:
    """One of the captured files."""
    return with_places((CAPTURED / name).read_text(), places)


def description(places: Mapping[str, str], directory: Path) -> dict[str, Any]:
    """The captured submit description."""
    found: dict[str, Any] = json.loads(captured("submit-description.json", places))
    # The cluster's number is in those paths, and their directory would have to be there before it is known.
    return found | {name: str(directory / f"$(ProcId).{name}") for name in ("output", "error")}


async def write_envfile(pool: Pool, directory: Path, text: str) -> None:
    """Write it as that TMS does; readable for its owner only, as the token here is a true one."""
    await pool.run(["mkdir", "--parents", str(directory)])
    path = str(directory / ENVFILE_NAME)
    await pool.run(["install", "--mode=700", "/dev/null", path])
    await pool.run(["tee", path], stdin=text.encode())


async def visible_as(pool: Pool, image: str, path: str) -> None:
    """Show an image of the pool at another path, too."""
    await pool.run(["mkdir", "--parents", path], user="root")
    await pool.run(["mount", "--bind", image, path], user="root")


@asynccontextmanager
async def open_todays_tms(pool: Pool, ground: Ground, stand: Stand, image: str) -> AsyncIterator["TodaysTMS"]:
    """One that starts `image` for its pilots."""
    async with open_schedd(ground.command([ground.python, "-m", "ewms.tms.condor.helper"])) as schedd:
        yield TodaysTMS(pool, stand, schedd, image)


@attrs.frozen
class TodaysTMS:
    """Its calls to the WMS and to HTCondor, one by one."""

    pool: Pool
    stand: Stand
    schedd: Schedd
    image: str

    @property
    def log(self) -> Path:
        """The one day log that it writes."""
        return self.stand.ground.job_dir / DAY_LOG

    async def submit(self, workflow: Workflow) -> int:
        """Submit the next taskforce that the WMS offers, which has to be this one's; its cluster."""
        order = await self._order("pending-starter")
        taskforce = order["taskforce"]
        assert taskforce["taskforce_uuid"] == workflow.taskforce_uuid
        directory = self.stand.ground.job_dir / taskforce_dir_name(workflow.taskforce_uuid)
        places = self._places(workflow, order["task_directive"])
        more = "".join(f"export {name}={value}\n" for name, value in taskforce["pilot_config"]["environment"].items())
        envfile = captured(ENVFILE_NAME, places).replace("set +x\n", f"{more}set +x\n")
        await write_envfile(self.pool, directory, envfile)
        described = description(places, directory) | {"request_cpus": "1"}
        submitted = await self.schedd.submit(described, count=taskforce["n_workers"])
        return submitted.cluster_id

    async def confirm(self, workflow: Workflow, cluster_id: int) -> None:
        """Tell the WMS."""
        taskforce = await self.stand.taskforce(workflow)
        await self._tell(
            "condor-submit",
            workflow,
            cluster_id=cluster_id,
            n_workers=taskforce["n_workers"],
            submit_dict={},
            job_event_log_fpath=str(self.log),
        )

    async def stop(self, workflow: Workflow) -> None:
        """Carry out the next stop order, which has to be this one's: by the cluster's number alone."""
        taskforce = await self._order("pending-stopper")
        assert taskforce["taskforce_uuid"] == workflow.taskforce_uuid
        constraint = f"ClusterId == {taskforce['cluster_id']}"
        acted = await self.schedd.act("remove", constraint, reason="Requested by EWMS")
        assert acted.succeeded
        await self._tell("condor-rm", workflow)

    async def complete(self, workflow: Workflow, ended_at: int) -> None:
        """Tell the WMS of the cluster's end."""
        await self._tell("condor-complete", workflow, condor_complete_ts=ended_at)

    async def clusters_of(self, workflow: Workflow) -> list[Any]:
        """The clusters that the queue has for a taskforce."""
        constraint = f'EWMSTaskforceUUID == "{workflow.taskforce_uuid}" && ProcId =?= undefined'
        return [ad["ClusterId"] for ad in await self.schedd.query(constraint, ["ClusterId"], cluster_ads=True)]

    async def _order(self, kind: str) -> dict[str, Any]:
        return await self.stand.call("GET", f"/v1/tms/{kind}/taskforces?schedd={SCHEDD_NAME}", None)

    async def _tell(self, call: str, workflow: Workflow, **body: Any) -> None:
        await self.stand.call("POST", f"/v1/tms/{call}/taskforces/{workflow.taskforce_uuid}", body)

    def _places(self, workflow: Workflow, directive: Mapping[str, Any]) -> dict[str, str]:
        two = "{0};{0}".format
        single = {two(each): each for each in ("TOKEN-FOR-TESTS", "broker.example.org", "rabbitmq")}
        return {
            f"{WORKFLOW}-in;{WORKFLOW}-in2": workflow.queue_in,
            **single,
            f"{WORKFLOW}-out": workflow.queue_out,
            IMAGE: self.image,
            TASKFORCE: workflow.taskforce_uuid,
            INIT_IMAGE: self.stand.ground.task_image,
            "cp {{INFILE}} {{OUTFILE}}": directive["task_args"],
            **places_here(self.pool, self.stand.ground.job_dir),
        }
