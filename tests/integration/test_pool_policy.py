"""What HTCondor itself does with workers that fail, cannot start or are held, by the policy that the TMS submits.

On the embedded schedd and on a real pool. What takes days takes seconds here; a worker plays its accidents by writing
into its own job ad what HTCondor would write there.
"""

import os
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

from ewms.testing.schedd import open_embedded_schedd
from ewms.tms.condor.base import Schedd
from ewms.tms.condor.schedd import open_schedd
from ewms.tms.policy import Policy, memory_request
from ewms.tms.settings import Settings

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

FAST: Final = attrs.evolve(
    Settings(wms_address="http://wms", no_auth=True, job_dir=Path("/jobs")).policy,
    avoid_machine_time=0,  # one machine is the whole pool
    max_start_failures=2,
    max_releases=2,
    release_wait=1,
    held_expiry=600,
)
BRIEF: Final = attrs.evolve(FAST, held_expiry=20)
"""A busy schedd evaluates its jobs' policies every few seconds only."""

CHIRP: Final = """
import os, socket, sys
host, port, cookie = open(os.environ["_CONDOR_CHIRP_CONFIG"]).read().split()
with socket.create_connection((host, int(port)), timeout=10) as s:
    answers = s.makefile("rb")
    for line in ["cookie " + cookie, *sys.argv[1:]]:
        s.sendall(line.encode() + b"\\n")
        answers.readline()
"""


@attrs.frozen
class Place:
    """A schedd, and a directory for one test's jobs."""

    schedd: Schedd
    directory: Path
    image: str
    patience: float

    async def submit(self, script: str, policy: Policy = FAST, count: int = 1, **more: str | int) -> int:
        (self.directory / "job.sh").write_text(script)
        (self.directory / "chirp.py").write_text(CHIRP)
        description: dict[str, str | int] = {
            "universe": "container",
            "container_image": self.image,
            "transfer_container": "false",
            "log": str(self.directory / "day.jel"),
            "should_transfer_files": "YES",
            "when_to_transfer_output": "ON_EXIT_OR_EVICT",
            "transfer_input_files": f"{self.directory}/job.sh,{self.directory}/chirp.py",
            "transfer_output_files": '""',
            "request_memory": memory_request(128),
            "request_disk": 1024,
            "job_max_vacate_time": 2,
            "max_idle": 10,
            "+WantIOProxy": "true",
            "+EWMSTaskforceUUID": f'"{self.directory.name}"',
            **policy.commands(),
            "requirements": " && ".join(policy.requirements()),
            **more,
        }
        return (await self.schedd.submit(description, count=count)).cluster_id

    @property
    def mine(self) -> str:
        return f'EWMSTaskforceUUID == "{self.directory.name}"'

    @property
    def events(self) -> list[tuple[int, str]]:
        """(number, text) of the log's events so far, without those about sizes and transfers."""
        path = self.directory / "day.jel"
        texts = path.read_text().split("\n...\n")[:-1] if path.exists() else []
        return [(int(text[:3]), text) for text in texts if text[:3] not in ("006", "040", "033")]

    @property
    def story(self) -> list[int]:
        """The numbers of the events, the cluster's own left out."""
        return [number for number, _ in self.events if number not in (35, 36)]

    async def until(self, what: str, wanted: Callable[[], bool]) -> None:
        with trio.move_on_after(self.patience):
            while not wanted():  # noqa: ASYNC110  another process writes it
                await trio.sleep(0.05)
            return
        pytest.fail(f"not {what} within {self.patience} s; the log is:\n{[text for _, text in self.events]}")

    async def until_gone(self) -> None:
        await self.until("removed from the queue", lambda: any(number == 36 for number, _ in self.events))

    async def ad(self, *names: str) -> dict[str, Any]:
        (ad,) = await self.schedd.query(self.mine, [*names, "ProcId"])
        return dict(ad)


@pytest.fixture(params=["embedded", pytest.param("pool", marks=pytest.mark.pool)])
async def place(request: pytest.FixtureRequest, work_dir: Path) -> AsyncIterator[Place]:
    if request.param == "embedded":
        jobs = work_dir / f"TF-{work_dir.name}"
        jobs.mkdir()
        open_it = partial(open_embedded_schedd, slots=4, entrypoint=["/bin/sh", "./job.sh"], policy_interval=0.2)
        async with open_it(work_dir / "schedd") as embedded, open_schedd(embedded.helper_command) as schedd:
            yield Place(schedd, jobs, "none", 30)
    else:
        pool: Pool = request.getfixturevalue("pool")
        directory = pool.job_dir / f"TF-{work_dir.name}"
        directory.mkdir()
        owner = pool.job_dir.stat()
        os.chown(directory, owner.st_uid, owner.st_gid)
        async with open_schedd(pool.command([pool.python, "-m", "ewms.tms.condor.helper"])) as schedd:
            place = Place(schedd, directory, pool.worker_image, 120)
            yield place
            await schedd.act("remove", place.mine, reason="the test is over")


def play(attribute: str, value: str) -> str:
    """A line of a worker's script that writes into its own job ad."""
    return f"until python3 chirp.py 'set_job_attr {attribute} {value}'; do sleep 1; done\n"


# --- workers that fail ---


async def test_a_worker_whose_task_failed_goes_back_to_the_queue_three_times(place: Place) -> None:
    await place.submit("exit 1\n")
    await place.until_gone()
    assert place.story == [0, *([1, 4] * 3), 1, 5]
    (last,) = [text for number, text in place.events if number == 5]
    assert "(return value 1)" in last


async def test_a_worker_that_ended_well_or_by_its_own_fault_does_not(place: Place) -> None:
    await place.submit('python3 -c "import sys; sys.exit(2)"\n')
    await place.until_gone()
    assert place.story == [0, 1, 5]


async def test_a_worker_that_failed_does_not_run_on_that_machine_for_a_while(place: Place) -> None:
    await place.submit("exit 1\n", attrs.evolve(FAST, avoid_machine_time=4, max_requeues=1))
    await place.until("requeued", lambda: 4 in place.story)
    failed = trio.current_time()
    await place.until_gone()
    assert trio.current_time() - failed > 3
    assert place.story == [0, 1, 4, 1, 5]


# --- workers that cannot start ---


@pytest.mark.pool
@pytest.mark.parametrize("place", ["pool"], indirect=True)
async def test_a_container_that_cannot_be_started_is_held_with_the_reason(place: Place) -> None:
    await place.submit("exit 0\n", container_image="/images/none:1")
    await place.until("held", lambda: 12 in place.story)
    reason = next(text for number, text in place.events if number == 12)
    assert re.search(r"its container could not be started \d+ times: .*could not open image /images/none:1", reason)
    assert "Code 3 Subcode 9001" in reason
    await place.until("released", lambda: 13 in place.story)
    assert (await place.ad("NumHolds"))["NumHolds"] == 1


async def test_a_worker_that_never_starts_is_held_and_released_as_often_as_any(place: Place) -> None:
    # It says what HTCondor notes when a container's test fails; that it is idle again is its requeue.
    await place.submit(play("NumVacatesByReason", "[SingularityTestFailed=2]") + "exit 1\n")
    await place.until("ended", lambda: place.story[-1:] == [5])
    assert place.story == [0, 1, 4, 12, 13, 1, 4, 1, 4, 1, 5]


# --- workers on hold ---


async def test_a_transfer_that_fails_is_tried_again_and_given_up(place: Place) -> None:
    await place.submit("exit 0\n", BRIEF, transfer_input_files=f"{place.directory}/missing")
    await place.until_gone()
    story = [number for number in place.story if number not in (4, 21)]
    assert story == [0, 12, 13, 12, 13, 12, 9]
    assert "PeriodicRemove" in place.events[-2][1]


async def test_a_transfer_that_fails_once_runs_in_the_end(place: Place) -> None:
    await place.submit("exit 0\n", transfer_input_files=f"{place.directory}/job.sh,{place.directory}/late")
    await place.until("held", lambda: 12 in place.story)
    (place.directory / "late").write_text("here")
    await place.until_gone()
    story = [number for number in place.story if number not in (4, 21)]
    assert story[-3:] == [13, 1, 5]


async def test_what_a_person_holds_is_neither_released_nor_removed(place: Place) -> None:
    await place.submit("sleep 300 &\nwait\n", attrs.evolve(FAST, held_expiry=2))
    await place.until("running", lambda: 1 in place.story)
    await place.schedd.act("hold", f"{place.mine} && ProcId =!= undefined", reason="mine")
    await place.until("held", lambda: 12 in place.story)
    await trio.sleep(8)
    assert place.story == [0, 1, 4, 12]
    assert (await place.ad("HoldReasonCode"))["HoldReasonCode"] == 1


async def test_a_worker_over_its_runtime_limit_is_removed(place: Place) -> None:
    await place.submit("sleep 300 &\nwait\n", allowed_execute_duration=1)
    await place.until_gone()
    assert place.story == [0, 1, 12, 9]


async def test_a_worker_that_used_too_much_memory_gets_more(place: Place) -> None:
    # It says what HTCondor notes when it holds with code 34; what it is held for is a lost output.
    script = play("NumHoldsByReason", "[JobOutOfResources=1]") + "exit 0\n"
    await place.submit(script, transfer_output_files="missing")
    await place.until("running again", lambda: place.story.count(1) == 2)
    first, second = (int(re.findall(r"\tMemory = (\d+)", text)[0]) for number, text in place.events if number == 1)
    assert first == 128
    assert second >= 192
