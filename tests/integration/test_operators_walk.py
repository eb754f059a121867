"""docs/operators.md, walked as by a new operator: its own commands, in its order, with nothing of ours installed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest
from asking import request, until
from instances import boot_clean
from tms_images import SETTINGS, publish

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.pool.booted import Booted
from ewms.testing.pool.data import containers_dir
from ewms.testing.stand import Stand, open_stand, tms_environment

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

GUIDE: Final = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
EXAMPLE_UUID: Final = re.search(r"TF-[0-9a-f-]+", GUIDE)
JOB_DIR: Final = "/scratch/ewms/jobs"
CLONE: Final = "/root/ewms-htcondor"
ENVFILE: Final = "/var/lib/ewms-tms/prod/envfile"
ENDS_AT_ONCE: Final = 'if [ "$1" = tms ]; then echo "something is missing" >&2; exit 1; fi\n'


def section(title: str) -> list[str]:
    """The commands under a heading, block by block."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the page has no section {title!r}"
    return re.findall(r"^```sh\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


@attrs.define
class Operator:
    """Root at a terminal, who copies from the page."""

    booted: Booted
    examples: dict[str, str] = attrs.field(factory=dict)
    """What stands on the page → what it is here."""
    cwd: str = CLONE

    async def types(self, block: str, status: int = 0) -> str:
        """All lines of a block; what they said. The next block begins where this one ended."""
        for example, here in self.examples.items():
            block = block.replace(example, here)
        script = f"{block}\nstatus=$?; pwd > /tmp/where; exit $status"
        done = await self.booted.inside.run(
            ["bash", "-o", "pipefail", "-c", script], user="root", cwd=self.cwd, check=False
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == status, f"{block}\n{said}"
        self.cwd = (await self.booted.inside.run(["cat", "/tmp/where"])).stdout.decode().strip()
        print(f"$ {block}{said}")
        return said

    async def fills_in(self, settings: Mapping[str, str]) -> None:
        """An editor: values for what the skeleton has, and more lines at the end."""
        text = (await self.booted.inside.run(["cat", ENVFILE], user="root")).stdout.decode()
        for name, value in settings.items():
            line = f'{name}="{value}"'
            text, n = re.subn(rf"^{name}=$", lambda _, line=line: line, text, flags=re.MULTILINE)  # type: ignore[misc]
            text += "" if n else f"{line}\n"
        await self.booted.inside.run(["tee", ENVFILE], user="root", stdin=text.encode())


async def test_from_nothing_to_an_update_and_back(pool: "Pool", tms_image: str, work_dir: Path) -> None:
    ground = attrs.evolve(pool_ground(pool, pool.job_dir.parent), job_dir=Path(JOB_DIR))
    async with boot_clean(pool) as booted, open_stand(ground, work_dir) as stand:
        await booted.inside.run(["mkdir", "-p", CLONE], user="root")
        await booted.inside.run(["cp", "-r", str(containers_dir()), f"{CLONE}/containers"], user="root")
        operator = Operator(booted)
        await _installs(operator, ground, stand, tms_image)
        await _looks(operator, ground, stand, work_dir)
        await _updates(operator, tms_image)


async def _installs(operator: Operator, ground: Ground, stand: Stand, tms_image: str) -> None:
    files, start = section("Install an instance")
    assert "Next:" in await operator.types(files)
    assert operator.cwd == "/var/lib/ewms-tms/prod"
    # What the page says, and the pace of a test.
    await operator.fills_in({**tms_environment(ground, stand.wms), **SETTINGS, "TMS_METRICS_PORT": "9310"})
    await publish(operator.booted, tms_image, "v1.3.0")
    said = await operator.types(start)
    assert "is stopped, and stays so" in said
    assert "Active: active (running)" in said


async def _looks(operator: Operator, ground: Ground, stand: Stand, work_dir: Path) -> None:
    (work_dir / "tms.log").touch()  # what `until` shows
    workflow = await stand.request(request(ground, "sh -c 'echo no table for run 4711 >&2; exit 3'", workers=1))
    await ground.queues.put(workflow.queue_in, ["one"])
    await until(stand, workflow, lambda t: t["top_task_errors"], "a task error at the WMS")
    assert EXAMPLE_UUID is not None
    operator.examples[EXAMPLE_UUID[0]] = workflow.taskforce_uuid
    (look,) = section("Look at it")
    said = await operator.types(look)
    assert "TF-" in said
    (why,) = section("A task fails: why?")
    assert "no table for run 4711" in await operator.types(why)
    await stand.finish(workflow)
    await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")


async def _updates(operator: Operator, tms_image: str) -> None:
    # Ten seconds are enough here.
    operator.examples["./update_tms_image_symlink.sh v"] = "./update_tms_image_symlink.sh --watch 5 v"
    forward, back = section("Another version, and back")
    bad = await publish(operator.booted, tms_image, "v1.4.0", ENDS_AT_ONCE)
    said = await operator.types(forward, status=5)
    assert "ROLLED BACK to" in said
    assert "something is missing" in said
    await operator.booted.inside.run(["umount", bad], user="root")
    await publish(operator.booted, tms_image, "v1.4.0", "")
    assert "v1.4.0 runs and is healthy" in await operator.types(forward)
    assert "v1.3.0 runs and is healthy" in await operator.types(back)
