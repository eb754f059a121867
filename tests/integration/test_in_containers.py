"""Tasks in containers in a container-universe job: what dies with them, and what they cannot see."""

import json
import os
import shlex
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, stopped, until

from ewms.contract import ENVFILE_NAME
from ewms.testing import outside
from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import Workflow, open_stand
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

# Ignores every signal, double-forks into a session of its own, forgets its environment, and holds its output open.
CLINGING: Final = """
import os, signal, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        time.sleep(1000)
    os._exit(0)
time.sleep(1000)
"""
GRACE_S: Final = 2
KILLING_S: Final = 6
"""SIGTERM, a second, SIGKILL; on a machine that others use too."""

SECRET_FILES: Final = (ENVFILE_NAME, ".chirp.config", ".job.ad", ".machine.ad")

# Says what it sees, as soon as the other task runs too.
LOOKING: Final = """
import json, os, sys, time
outfile, hub = sys.argv[1:]
open(hub + "/" + str(os.path.basename(outfile)), "w").close()
while len(os.listdir(hub)) < 2: time.sleep(0.05)
def read(path):
    try: return open(path, errors="replace").read()
    except OSError: return ""
def below(*roots):
    return sorted(os.path.join(at, name) for root in roots for at, _, names in os.walk(root) for name in names)
own = below("/ewms-pilot-data", "/tmp", "/var/tmp", os.environ["HOME"])
skipped = {"proc", "sys", "usr"}
everywhere = below(*("/" + name for name in os.listdir("/") if name not in skipped))
processes = [name for name in os.listdir("/proc") if name.isdigit()]
seen = {
    "environment": dict(os.environ),
    "environments": [read("/proc/" + pid + "/environ") for pid in processes],
    "command_lines": [read("/proc/" + pid + "/cmdline") for pid in processes],
    "mounts": [line.split()[4] for line in read("/proc/self/mountinfo").splitlines()],
    "own": own,
    "everywhere": everywhere,
}
json.dump(seen, open(outfile, "w"))
time.sleep(1)
"""


@pytest.fixture(params=["apptainer", "bwrap"])
def ground(pool: "Pool", request: pytest.FixtureRequest) -> Ground:
    """Only here are there containers; with each of their runtimes."""
    ground = pool_ground(pool, pool.job_dir.parent)
    config = dict(ground.pilot_config)
    config["environment"] = {**config["environment"], "_EWMS_PILOT_CONTAINER_PLATFORM": request.param}
    return attrs.evolve(ground, pilot_config=config)


def python(script: str, *words: str) -> str:
    """Arguments that run a script; the envfile keeps no new-lines."""
    return shlex.join(["python3", "-c", f"exec(bytes.fromhex('{script.encode().hex()}'))", *words])


def clinging(marker: str) -> list[outside.Process]:
    """The task's own processes: the container runtime's own have other names."""
    return [each for each in outside.tasks(marker) if each.command_line.startswith(b"python3\0-c")]


async def events_in(ground: Ground, workflow: Workflow, count: int) -> list[str]:
    found: list[str] = []
    with trio.fail_after(30):
        await ground.queues.get(workflow.queue_in, count, found.append)
    return found


async def test_a_clinging_task_is_gone_within_the_grace(ground: Ground, work_dir: Path) -> None:
    """When its worker is vacated, when its pilot is killed, and when its cluster is stopped: with the event back."""
    marker = f"clinging-{uuid.uuid4().hex}"
    helper = ground.command([ground.python, "-m", "ewms.tms.condor.helper"])
    async with open_stand(ground, work_dir) as stand, stand.tms(), open_schedd(helper) as schedd:
        asked = request(ground, python(CLINGING, marker), workers=2, EWMS_PILOT_STOP_GRACE=GRACE_S)
        workflow = await stand.request(asked)
        await ground.queues.put(workflow.queue_in, ["one"])
        uuid_is = f'EWMSTaskforceUUID == "{workflow.taskforce_uuid}"'

        await outside.until(lambda: len(clinging(marker)) == 2, "a clinging task", DEADLINE_S)
        first = {each.pid for each in clinging(marker)}
        await schedd.act("vacate", f"{uuid_is} && JobStatus == 2", reason="a test")
        await outside.until(
            lambda: not first & {each.pid for each in outside.processes()}, "gone when vacated", GRACE_S + KILLING_S
        )

        # Handed back, so it runs again.
        await outside.until(lambda: len(clinging(marker)) == 2, "a clinging task again", DEADLINE_S)
        second = {each.pid for each in clinging(marker)}
        (its_pilot,) = [each for each in outside.pilots(marker) if second & outside.descendants(each.pid)]
        os.kill(its_pilot.pid, signal.SIGKILL)
        await outside.until(
            lambda: not second & {each.pid for each in outside.processes()}, "gone with its pilot", KILLING_S
        )

        await outside.until(lambda: len(clinging(marker)) == 2, "a clinging task in the other pilot", DEADLINE_S)
        await stopped(stand, workflow)
        assert outside.marked(marker) == []
        assert await events_in(ground, workflow, 1) == ["one"]


async def test_a_clinging_task_that_times_out_has_failed(ground: Ground, work_dir: Path) -> None:
    marker = f"clinging-{uuid.uuid4().hex}"
    async with open_stand(ground, work_dir) as stand, stand.tms():
        asked = request(ground, python(CLINGING, marker), workers=1, EWMS_PILOT_TASK_TIMEOUT=5)
        workflow = await stand.request(asked)
        await ground.queues.put(workflow.queue_in, ["one"])
        await outside.until(lambda: len(clinging(marker)) == 2, "a clinging task", DEADLINE_S)
        its = {each.pid for each in clinging(marker)}
        await outside.until(
            lambda: not its & {each.pid for each in outside.processes()}, "gone after its time", 5 + KILLING_S
        )
        taskforce = await until(stand, workflow, lambda t: bool(t["top_task_errors"]), "an error at the WMS")
        assert taskforce["top_task_errors"] == {"task failed: [Timeout-Error] timed out after 5s": 1}
        await stopped(stand, workflow)
        assert outside.marked(marker) == []
        assert await events_in(ground, workflow, 1) == ["one"]


async def test_a_task_sees_nothing_but_its_own(ground: Ground, work_dir: Path) -> None:
    args = python(LOOKING, "{{OUTFILE}}", "{{DATA_HUB}}")
    settings: dict[str, str | int] = {"EWMS_PILOT_MAX_CONCURRENT_TASKS": 2, "EWMS_PILOT_OUTFILE_EXT": ".json"}
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(request(ground, args, workers=1, **settings))
        await ground.queues.put(workflow.queue_in, ["one", "two"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there_is_something_to_see, workflow.queue_in)
            both: list[dict[str, Any]] = []
            with trio.fail_after(DEADLINE_S):
                await ground.queues.get(workflow.queue_out, 2, both.append)
        await stopped(stand, workflow)
    for seen in both:
        check(ground, seen)
    names = [{path for path in seen["own"] if "/task-io/" in path} for seen in both]
    assert not names[0] & names[1]


async def there_is_something_to_see(marker: str) -> None:
    """The pilot itself has what its tasks may not see."""
    await outside.until(lambda: outside.pilots(marker), "a pilot", DEADLINE_S)
    (pilot,) = outside.pilots(marker)
    variables = dict(line.split("=", 1) for line in pilot.environment.decode().split("\0") if "=" in line)
    assert variables["EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN"]
    assert "execute" in variables["APPTAINER_BIND"]
    root = Path(f"/proc/{pilot.pid}/root")
    for name in ("_CONDOR_CHIRP_CONFIG", "_CONDOR_JOB_AD", "_CONDOR_MACHINE_AD"):
        assert root.joinpath(variables[name].lstrip("/")).name in SECRET_FILES
        assert root.joinpath(variables[name].lstrip("/")).exists(), name  # noqa: ASYNC240
    assert Path(f"/proc/{pilot.pid}/cwd", ENVFILE_NAME).exists()  # noqa: ASYNC240


def check(ground: Ground, seen: dict[str, Any]) -> None:
    assert ground.broker_token.reveal() not in json.dumps(seen)
    words = "\n".join([*seen["environments"], *seen["command_lines"], *seen["environment"]])
    assert not [name for name in ("EWMS_PILOT_", "_CONDOR", "AUTH_TOKEN") if name in words]
    # The runtime's own note of what was bound; HTCondor's variable of that name is not among it.
    assert seen["environment"]["APPTAINER_BIND"] == "/ewms-pilot-data/data-hub,/ewms-pilot-data/task-io"
    ours = {mount for mount in seen["mounts"] if mount.startswith("/ewms-pilot-data")}
    assert ours == {"/ewms-pilot-data/data-hub", "/ewms-pilot-data/task-io"}
    # HOME has the name of the user's own, which is the worker's directory; what is there is the task's scratch.
    assert not {mount for mount in seen["mounts"] if "execute" in mount} - {seen["environment"]["HOME"]}
    assert len([path for path in seen["own"] if "infile-" in path]) == 1
    rest = [path for path in seen["own"] if not path.startswith("/ewms-pilot-data/")]
    assert rest == []
    assert not [path for path in seen["everywhere"] if path.endswith((*SECRET_FILES, "stdoutfile", "stderrfile"))]
