"""The TMS from its image, pilots from theirs, on the real pool: `apptainer run` as the user who owns the jobs."""

import json
import re
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

JEL: Final = Path(__file__).parents[1] / "data" / "jel"
PAGE: Final = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
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
        await as_the_page_says(pool, apptainer[-1], stand)
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


async def as_the_page_says(pool: "Pool", image: str, stand: Stand) -> None:
    """docs/images.md, line by line: what of the machine Apptainer shows by itself is seen, too."""
    found = re.search(r"^## The TMS's image\n.*?^```sh\nimage=\S+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    binds, would_run, runs, reads = found[1].splitlines()

    def typed(line: str) -> list[str]:
        return ["bash", "-euc", f"image={image}; {binds}\nexec {line}"]

    environment = tms_environment(stand.ground, stand.wms)
    checked = await pool.run(typed(would_run), env=environment, check=False)
    assert checked.returncode == 0, checked.stdout.decode()
    ground = attrs.evolve(stand.ground, command=lambda _: pool.command(typed(runs)))
    async with attrs.evolve(stand, ground=ground).tms():
        with trio.fail_after(DEADLINE_S):
            while "TMS ready" not in (stand.work_dir / "tms.log").read_text():  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.1)
    log = reads.partition("#")[0].split()[-1]
    await pool.run(["tee", f"{pool.job_dir}/{log}"], stdin=(JEL / "factory-with-notes.jel").read_bytes())
    told = await pool.run(typed(reads), env=environment, cwd=str(pool.job_dir))
    assert "TF-1" in told.stdout.decode()
    await pool.run(["rm", f"{pool.job_dir}/{log}"])


async def check(pool: "Pool", apptainer: list[str], stand: Stand) -> None:
    checked = await pool.run([*apptainer, "check", "tms"], env=tms_environment(stand.ground, stand.wms), check=False)
    text = checked.stdout.decode()
    assert checked.returncode == 0, text
    assert "OK       schedd " in text
