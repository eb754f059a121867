"""Lines of docs/security.md that need a real worker: what a hostile task, and a hostile image of a pilot, can reach."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import hostile_task
import pytest
import trio
from asking import DEADLINE_S, stopped
from asking import request as asked
from pilot_job import make_directory, run_job

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

PROGRAM: Final = Path(hostile_task.__file__).read_bytes().hex()
TASKS: Final = 2
OWN_PLACES: Final = {"/dev", "/dev/shm", "/tmp", "/var/tmp", "/ewms-pilot-data/data-hub", "/ewms-pilot-data/task-io"}
ATTEMPTS: Final = [each.__name__ for each in hostile_task.ATTEMPTS]
WITHOUT_ISOLATION: Final = ("read_files", "read_environments", "through_other_roots", "signal_others")
"""What gets something wherever nothing is in its way; more does where the kernel lets processes of a user be traced."""


@pytest.fixture(scope="module", params=["apptainer", "bwrap"])
def got(request: pytest.FixtureRequest, pool: "Pool", session_dir: Path) -> list[dict[str, Any]]:
    """What two hostile tasks of one pilot got, side by side in a container-universe job."""
    return got_on(request.param, pool, session_dir)


def got_on(platform: str, pool: "Pool", session_dir: Path) -> list[dict[str, Any]]:
    directory = session_dir / f"hostile-{platform}"
    directory.mkdir()
    ground = pool_ground(pool, pool.job_dir.parent)
    config = dict(ground.pilot_config)
    config["environment"] = {**config["environment"], "_EWMS_PILOT_CONTAINER_PLATFORM": platform}
    return trio.run(attacked, attrs.evolve(ground, pilot_config=config), directory)


async def attacked(ground: Ground, directory: Path) -> list[dict[str, Any]]:
    words = ["python3", "-c", f"exec(bytes.fromhex('{PROGRAM}'))", "{{OUTFILE}}", "{{DATA_HUB}}", str(TASKS)]
    settings: dict[str, str | int] = {"EWMS_PILOT_MAX_CONCURRENT_TASKS": TASKS, "EWMS_PILOT_OUTFILE_EXT": ".json"}
    found: list[dict[str, Any]] = []
    async with open_stand(ground, directory) as stand, stand.tms():
        workflow = await stand.request(asked(ground, shlex.join(words), workers=1, **settings))
        await ground.queues.put(workflow.queue_in, [str(number) for number in range(TASKS)])
        with trio.move_on_after(DEADLINE_S):
            await ground.queues.get(workflow.queue_out, TASKS, found.append)
        if len(found) < TASKS:
            pytest.fail(f"{len(found)} of {TASKS} told what they got: {await stand.taskforce(workflow)}")
        await stopped(stand, workflow)
    return found


@pytest.mark.parametrize("attempt", [name for name in ATTEMPTS if name != "write_elsewhere"])
def test_a_hostile_task_gets_nothing(attempt: str, got: list[dict[str, Any]]) -> None:
    assert [each[attempt] for each in got] == [[]] * TASKS


def test_a_hostile_task_writes_to_its_own_places_only(got: list[dict[str, Any]]) -> None:
    assert [written_outside(each) for each in got] == [[]] * TASKS


def written_outside(found: dict[str, Any]) -> list[str]:
    own = tuple(f"{place}/" for place in (*OWN_PLACES, *found["home"]))
    return [place for place in found["write_elsewhere"] if not f"{place}/".startswith(own)]


def test_the_same_task_gets_at_others_where_nothing_isolates_it(pool: "Pool", session_dir: Path) -> None:
    """An attempt that is broken would get nothing anywhere."""
    for each in got_on("process", pool, session_dir):
        assert [name for name in WITHOUT_ISOLATION if not each[name]] == []
        assert any(found.endswith("secret") for found in each["read_files"] + each["read_environments"])
        assert written_outside(each) != []


# --- a pilot's own container ---

CHIRPING: Final = """
import json, os, socket
host, port, cookie = open(os.environ["_CONDOR_CHIRP_CONFIG"]).read().split()
stream = socket.create_connection((host, int(port)), timeout=30)
lines = stream.makefile("rw", newline="\\n")
def ask(text):
    lines.write(text + "\\n")
    lines.flush()
    return int(lines.readline())
ask("cookie " + cookie)
print(json.dumps({text.split()[0]: ask(text) for text in (
    "ulog hello", "set_job_attr EWMSTried 1", "open /etc/passwd r 0", "lookup /etc/passwd", "unlink /tmp/x",
    "rename /tmp/x /tmp/y", "mkdir /tmp/x 448", "getfile /etc/passwd", "stat /etc/passwd", "getdir /tmp",
)}))
"""


def test_a_worker_reaches_no_file_of_the_access_point(pool: "Pool") -> None:
    """Its chirp reaches its log and its ad only; with `WantIOProxy` it could read whatever the TMS's user can."""
    directory = make_directory(pool, "chirping")
    said = run_job(pool, directory, shlex.join(["python3", "-c", CHIRPING]), "+WantRemoteUpdates = true")
    answers = json.loads(said)
    assert {name for name, code in answers.items() if code >= 0} == {"ulog", "set_job_attr"}
    assert " hello\n" in (directory / "log").read_text()
