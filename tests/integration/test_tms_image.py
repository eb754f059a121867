"""The TMS from its image, pilots from theirs, on the real pool: `apptainer run` as the user who owns the jobs."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, until

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import Stand, open_stand, tms_environment

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

AS_A_MODULE: Final = 3
"""Words of `python3 -m ewms`, which the image's entrypoint stands for."""


@pytest.fixture
def apptainer(pool: "Pool", tms_image: str) -> list[str]:
    """The command that the image's help tells: nothing of the machine but what the TMS needs."""
    binds = ["/etc/condor:/etc/condor:ro", "/usr/share/condor:/usr/share/condor:ro", "/tmp", str(pool.job_dir)]
    return ["apptainer", "run", "--contain", "--no-home", "--bind", ",".join(binds), tms_image]


@pytest.fixture
def ground(pool: "Pool", apptainer: list[str]) -> Ground:
    """The pool, with what is run as `ewms` run from the image."""
    ground = pool_ground(pool, pool.job_dir.parent)
    return attrs.evolve(ground, command=lambda argv: pool.command([*apptainer, *argv[AS_A_MODULE:]]))


async def test_a_workflow_from_images_only(pool: "Pool", apptainer: list[str], ground: Ground, work_dir: Path) -> None:
    versions = f"versions: ewms {version('ewms-htcondor')}, "
    async with open_stand(ground, work_dir) as stand:
        await check(pool, apptainer, stand)
        async with stand.tms() as tms:
            asked = request(
                ground, "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'", EWMS_PILOT_TIMEOUT_QUEUE_INCOMING=5
            )
            workflow = await stand.request(asked)
            await ground.queues.put(workflow.queue_in, ["one", "two", "three"])
            results: list[str] = []
            with trio.fail_after(DEADLINE_S):
                await ground.queues.get(workflow.queue_out, 3, results.append)
            assert sorted(results) == ["ONE", "THREE", "TWO"]
            taskforce = await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")
            assert taskforce["compound_statuses"] == {"COMPLETED": {"Done": 2}}
        # SIGTERM went through Apptainer and the entrypoint.
        assert tms.returncode == 0
    said = (work_dir / "tms.log").read_text()
    assert f"{versions}htcondor " in said
    assert "clusters are left alone" in said

    log = max(ground.job_dir.glob("*.tms.jel"))
    told = await pool.run([*apptainer, "log", "--json", str(log)])
    assert json.loads(told.stdout)["taskforces"][workflow.taskforce_uuid]["complete"]
    (error,) = list(ground.job_dir.glob(f"ewms-taskforce-{workflow.taskforce_uuid}/cluster-*/0.err"))
    assert error.read_text().startswith(f"{versions}aiormq ")
    assert ", apptainer " in error.read_text().splitlines()[0]


async def check(pool: "Pool", apptainer: list[str], stand: Stand) -> None:
    checked = await pool.run([*apptainer, "check", "tms"], env=tms_environment(stand.ground, stand.wms), check=False)
    text = checked.stdout.decode()
    assert checked.returncode == 0, text
    assert "OK       schedd " in text
