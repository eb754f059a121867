"""What the TMS relies on of a schedd and of its log: the same tests for the embedded schedd and for a real pool."""

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

from ewms.testing.held import held
from ewms.testing.schedd import open_embedded_schedd
from ewms.tms.condor.base import CondorRefused, Schedd, SubmitValue
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ewms.testing.pool import Pool
    from ewms.testing.schedd import EmbeddedSchedd

BACKGROUND: Final = {6, 40}
"""Events about sizes and file transfers: their number is HTCondor's business."""

CHIRP: Final = """
import os, socket, sys
host, port, cookie = open(os.environ["_CONDOR_CHIRP_CONFIG"]).read().split()
with socket.create_connection((host, int(port))) as s:
    answers = s.makefile("rb")
    for line in ["cookie " + cookie, *sys.argv[1:]]:
        s.sendall(line.encode() + b"\\n")
        print(line.split()[0], answers.readline().decode().strip(), flush=True)
"""
"""A chirp client for the scripts: each argument is one line."""

WAIT_FOR_TERM: Final = "trap 'exit 0' TERM\nsleep 300 &\nwait\n"


@attrs.frozen
class Place:
    """A schedd, and a directory for one test's jobs."""

    schedd: Schedd
    directory: Path
    own: Mapping[str, SubmitValue]
    """What a description needs here in order to run `./job.sh`."""
    patience: float

    @property
    def log(self) -> "Log":
        return Log(self.directory / "day.jel")

    def describe(self, script: str, **more: SubmitValue) -> dict[str, SubmitValue]:
        """A description of a worker that runs `script`."""
        (self.directory / "job.sh").write_text(script)
        (self.directory / "chirp.py").write_text(CHIRP)
        return {
            "universe": "container",
            "log": str(self.directory / "day.jel"),
            "output": str(self.directory / "out/$(ProcId)"),
            "error": str(self.directory / "out/$(ProcId).err"),
            "should_transfer_files": "YES",
            "when_to_transfer_output": "ON_EXIT",
            "transfer_input_files": f"{self.directory}/job.sh,{self.directory}/chirp.py",
            "transfer_output_files": '""',
            "request_memory": 64,
            "request_disk": 1024,
            "job_max_vacate_time": 5,
            "+WantRemoteUpdates": "true",
            "+EWMSTaskforceUUID": f'"{self.uuid}"',
            "submit_event_user_notes": f"EWMSTaskforceUUID={self.uuid}",
            **self.own,
            **more,
        }

    @property
    def uuid(self) -> str:
        return f"TF-{self.directory.name}"

    @property
    def mine(self) -> str:
        return f'EWMSTaskforceUUID == "{self.uuid}"'

    async def until(self, what: str, wanted: Callable[["Log"], bool]) -> "Log":
        """The log as soon as it is as wanted."""
        with trio.move_on_after(self.patience):
            while not wanted(self.log):  # noqa: ASYNC110  another process writes it
                await trio.sleep(0.05)
            return self.log
        pytest.fail(f"not {what} within {self.patience} s; the log is:\n{self.log.text}")

    async def until_gone(self) -> None:
        """Until the queue has nothing of this test."""
        with trio.fail_after(self.patience):
            while await self.schedd.query(self.mine, ["ProcId"], cluster_ads=True):  # noqa: ASYNC110
                await trio.sleep(0.05)


@attrs.frozen
class Log:
    """A job event log at one moment, read as simply as can be."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""

    def events(self, *numbers: int) -> list[str]:
        """The texts of the events with these numbers."""
        events = self.text.split("\n...\n")[:-1]
        return [event for event in events if int(event[:3]) in numbers]

    def procs(self) -> dict[int, list[int]]:
        """The numbers of each proc's events, in order; those of the cluster under -1."""
        found: dict[int, list[int]] = {}
        for event in self.text.split("\n...\n")[:-1]:
            match = re.match(r"(\d{3}) \(\d{3,}\.(-01|\d{3,})\.000\) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", event)
            assert match, event
            if (number := int(match[1])) not in BACKGROUND:
                found.setdefault(int(match[2]), []).append(number)
        return found

    def count(self, number: int) -> int:
        return len(self.events(number))

    def last_is(self, *numbers: int) -> bool:
        """Whether every proc's last event is one of these."""
        procs = {proc: events for proc, events in self.procs().items() if proc >= 0}
        return bool(procs) and all(events[-1] in numbers for events in procs.values())


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[EmbeddedSchedd]":
    directory = tmp_path_factory.mktemp("schedd")
    entrypoint = ["/bin/sh", "./job.sh"]
    with held(partial(open_embedded_schedd, directory, slots=4, entrypoint=entrypoint, policy_interval=0.1)) as opened:
        yield opened


@pytest.fixture(params=["embedded", pytest.param("pool", marks=pytest.mark.pool)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "embedded":
        embedded: EmbeddedSchedd = request.getfixturevalue("embedded")
        async with open_schedd(embedded.helper_command) as schedd:
            yield Place(schedd, tmp_path, {"container_image": "none"}, 15)
    else:
        pool: Pool = request.getfixturevalue("pool")
        directory = pool.job_dir / re.sub(r"\W+", "-", request.node.name)
        directory.mkdir()
        owner = pool.job_dir.stat()
        os.chown(directory, owner.st_uid, owner.st_gid)
        own: dict[str, SubmitValue] = {"container_image": pool.worker_image, "transfer_container": "false"}
        async with open_schedd(pool.command([pool.python, "-m", "ewms.tms.condor.helper"])) as schedd:
            yield Place(schedd, directory, own, 120)


# --- the life of a cluster ---


async def test_a_plain_cluster_runs_to_its_end(place: Place) -> None:
    submitted = await place.schedd.submit(place.describe("echo hello; echo oops >&2"), count=2)
    assert submitted.n_procs == 2
    log = await place.until("terminated", lambda log: log.count(5) == 2)
    assert log.procs() == {0: [0, 1, 5], 1: [0, 1, 5]}
    assert all("(1) Normal termination (return value 0)" in event for event in log.events(5))
    assert (place.directory / "out/1").read_text() == "hello\n"
    assert (place.directory / "out/1.err").read_text() == "oops\n"
    await place.until_gone()
    past = await place.schedd.history(place.mine, ["ClusterId", "ProcId", "ExitCode", "JobStatus"])
    assert sorted(past, key=lambda ad: str(ad["ProcId"])) == [
        {"ClusterId": submitted.cluster_id, "ProcId": proc, "ExitCode": 0, "JobStatus": 4} for proc in (0, 1)
    ]


async def test_a_factory_materializes_runs_and_completes(place: Place) -> None:
    submitted = await place.schedd.submit(place.describe("exit 0", max_idle=2), count=5)
    assert submitted.n_procs == 5
    log = await place.until("complete", lambda log: log.count(36) == 1)
    assert log.procs() == {-1: [35, 36], **{proc: [0, 1, 5] for proc in range(5)}}
    assert "\n\tMaterialized 5 jobs from 0 items.\tComplete" in log.events(36)[0]
    assert log.text.index("\n000 (") > log.text.index("035 (")


async def test_a_factory_is_one_ad_and_is_removed_as_one(place: Place) -> None:
    await place.schedd.submit(place.describe(WAIT_FOR_TERM, max_idle=2), count=30)
    await place.until("running", lambda log: log.count(1) >= 1)
    projection = ["ClusterId", "ProcId", "TotalSubmitProcs"]
    (ad,) = await place.schedd.query(f"{place.mine} && ProcId =?= undefined", projection, cluster_ads=True)
    assert ad.get("ProcId") is None
    assert ad["TotalSubmitProcs"] == 30
    acted = await place.schedd.act("remove", place.mine, reason="no longer wanted")
    assert acted.succeeded >= 2
    assert acted.failed == 0
    log = await place.until("removed", lambda log: log.count(36) == 1)
    assert "\tIncomplete" in log.events(36)[0]
    procs = log.procs()
    assert procs.pop(-1) == [35, 36]
    # One that was just being started may have been evicted before it executed.
    assert all(events in ([0, 9], [0, 4, 9], [0, 1, 4, 9]) for events in procs.values()), procs
    assert [0, 1, 4, 9] in procs.values()
    assert all(re.search(r"\tno longer wanted \(by user \w+\)", event) for event in log.events(9))
    await place.until_gone()


async def test_a_paused_factory_is_seen_only_as_a_cluster_ad(place: Place) -> None:
    # Requirements that nothing meets: the workers stay idle.
    description = place.describe("exit 0", max_idle=2, requirements="HasNoSuchThing =?= true")
    cluster = (await place.schedd.submit(description, count=6)).cluster_id
    await place.until("materialized", lambda log: log.count(0) == 2)
    await place.schedd.act("hold", f"ClusterId == {cluster}", reason="pause")
    log = await place.until("held", lambda log: log.count(12) == 2)
    assert log.procs() == {-1: [35, 37], 0: [0, 12], 1: [0, 12]}
    again = await place.schedd.act("hold", f"ClusterId == {cluster}", reason="again")
    assert (again.succeeded, again.failed) == (1, 0)  # the cluster, but none of its held procs
    assert re.search(r"\n\tpause \(by user \w+\)\n\tPauseCode 1\n\tHoldCode 1$", log.events(37)[0])
    await place.schedd.act("remove", f"{place.mine} && ProcId =!= undefined", reason="procs")
    await place.until("aborted", lambda log: log.count(9) == 2)
    assert await place.schedd.query(place.mine, ["ProcId"]) == []
    (ad,) = await place.schedd.query(place.mine, ["JobMaterializePaused", "JobsPresent"], cluster_ads=True)
    assert ad["JobMaterializePaused"] == 1
    await place.schedd.act("release", f"ClusterId == {cluster}", reason="go on")
    await place.until("resumed", lambda log: log.count(38) == 1 and log.count(0) == 4)
    await place.schedd.act("remove", f"ClusterId == {cluster}", reason="all")
    log = await place.until("removed", lambda log: log.count(36) == 1)
    assert log.procs()[-1] == [35, 37, 37, 38, 36]
    assert "\tIncomplete" in log.events(36)[0]
    assert await place.schedd.history(place.mine, ["ProcId"], match=1) != []


# --- running workers ---


async def test_a_removed_worker_gets_sigterm_and_may_still_chirp(place: Place) -> None:
    script = (
        "trap 'python3 chirp.py \"ulog got\\ SIGTERM\"; exit 0' TERM\npython3 chirp.py 'ulog here'\nsleep 300 &\nwait\n"
    )
    await place.schedd.submit(place.describe(script), count=1)
    await place.until("here", lambda log: log.count(8) == 1)
    acted = await place.schedd.act("remove", place.mine, reason="stop order")
    assert (acted.succeeded, acted.failed) == (1, 0)
    log = await place.until("removed", lambda log: log.count(9) == 1)
    assert log.procs() == {0: [0, 1, 8, 8, 4, 9]}
    assert log.events(8)[1].endswith(" got SIGTERM")
    assert "Job was evicted. Code 1023 Subcode 0\n" in log.events(4)[0]


async def test_a_worker_that_ignores_sigterm_is_killed_after_its_vacate_time(place: Place) -> None:
    script = "trap '' TERM\npython3 chirp.py 'ulog here'\nwhile :; do sleep 1; done\n"
    await place.schedd.submit(place.describe(script, job_max_vacate_time=1), count=1)
    await place.until("here", lambda log: log.count(8) == 1)
    await place.schedd.act("remove", place.mine, reason="stop order")
    log = await place.until("removed", lambda log: log.count(9) == 1)
    assert log.procs() == {0: [0, 1, 8, 4, 9]}


async def test_a_worker_held_and_released_runs_again(place: Place) -> None:
    await place.schedd.submit(place.describe(WAIT_FOR_TERM), count=1)
    await place.until("running", lambda log: log.count(1) == 1)
    await place.schedd.act("hold", place.mine, reason="look at it")
    log = await place.until("held", lambda log: log.count(12) == 1)
    assert re.search(r"\n\tlook at it \(by user \w+\)\n\tCode 1 Subcode 0$", log.events(12)[0])
    (ad,) = await place.schedd.query(place.mine, ["JobStatus", "HoldReasonCode"])
    assert (ad["JobStatus"], ad["HoldReasonCode"]) == (5, 1)
    await place.schedd.act("release", place.mine, reason="go on")
    await place.until("running again", lambda log: log.count(1) == 2)
    await place.schedd.act("remove", place.mine, reason="enough")
    log = await place.until("removed", lambda log: log.count(9) == 1)
    assert log.procs() == {0: [0, 1, 4, 12, 13, 1, 4, 9]}


async def test_a_vacated_worker_runs_again(place: Place) -> None:
    await place.schedd.submit(place.describe(WAIT_FOR_TERM), count=1)
    await place.until("running", lambda log: log.count(1) == 1)
    await place.schedd.act("vacate", place.mine, reason="elsewhere")
    log = await place.until("running again", lambda log: log.count(1) == 2)
    assert log.procs() == {0: [0, 1, 4, 1]}
    assert "Job was evicted. Code 1022 Subcode 0\n" in log.events(4)[0]
    await place.schedd.act("remove", place.mine, reason="enough")
    await place.until("removed", lambda log: log.count(9) == 1)


async def test_an_exit_status_is_told(place: Place) -> None:
    await place.schedd.submit(place.describe("exit 3"), count=1)
    log = await place.until("terminated", lambda log: log.count(5) == 1)
    assert "\n\t(1) Normal termination (return value 3)\n" in log.events(5)[0]
    (ad,) = await place.schedd.history(place.mine, ["ExitCode"], match=1)
    assert ad == {"ExitCode": 3}


async def test_policies_for_the_end_of_a_worker(place: Place) -> None:
    description = place.describe("exit 6", on_exit_remove="NumJobStarts >= 2")
    await place.schedd.submit(description, count=1)
    log = await place.until("terminated", lambda log: log.count(5) == 1)
    assert log.procs() == {0: [0, 1, 4, 1, 5]}
    assert "\n\t(0) Job terminated and was requeued\n" in log.events(4)[0]


async def test_a_hold_on_exit_is_no_termination(place: Place) -> None:
    more: dict[str, Any] = {
        "on_exit_hold": "ExitCode == 5",
        "on_exit_hold_reason": '"exited 5"',
        "on_exit_hold_subcode": 55,
    }
    await place.schedd.submit(place.describe("exit 5", **more), count=1)
    log = await place.until("held", lambda log: log.count(12) == 1)
    assert log.procs() == {0: [0, 1, 12]}
    assert log.events(12)[0].endswith("Job was held.\n\texited 5\n\tCode 3 Subcode 55")
    await place.schedd.act("remove", place.mine, reason="enough")


async def test_a_missing_input_file_holds_the_job(place: Place) -> None:
    missing = f"{place.directory}/job.sh,{place.directory}/not there"
    await place.schedd.submit(place.describe("exit 0", transfer_input_files=missing), count=1)
    log = await place.until("held", lambda log: log.count(12) == 1)
    assert log.procs() == {0: [0, 21, 4, 12]}
    assert log.events(12)[0].endswith("\n\tCode 13 Subcode 2")
    assert "Transfer input files failure at access point " in log.events(12)[0]
    assert f"{place.directory}/not there: (errno 2) No such file or directory" in log.events(12)[0]
    await place.schedd.act("remove", place.mine, reason="enough")


# --- chirp ---


async def test_chirp(place: Place) -> None:
    lines = [
        'ulog HTChirpEWMSPilotStatus:\\ "Tasking"',
        'set_job_attr EWMSx "a\\ b"',
        "set_job_attr EWMSx 3",
        'set_job_attr Owner "root"',
        "nonsense",
    ]
    quoted = " ".join("'" + line + "'" for line in lines)
    await place.schedd.submit(place.describe(f"python3 chirp.py {quoted}"), count=1)
    log = await place.until("terminated", lambda log: log.count(5) == 1)
    assert log.procs() == {0: [0, 1, 8, 33, 33, 5]}
    assert log.events(8)[0].endswith(' HTChirpEWMSPilotStatus: "Tasking"')
    assert log.events(33)[0].endswith(' Setting job attribute EWMSx to "a b"')
    assert log.events(33)[1].endswith(' Changing job attribute EWMSx from "a b" to 3')
    answers = dict(line.split() for line in (place.directory / "out/0").read_text().splitlines())
    assert answers == {"cookie": "0", "ulog": "0", "set_job_attr": "-2", "nonsense": "-8"}


# --- submitting ---


async def test_bad_requirements_are_refused_in_htcondors_words(place: Place) -> None:
    for factory in ({}, {"max_idle": 2}):
        description = place.describe("exit 0", requirements="HasSingularity &&", **factory)
        with pytest.raises(CondorRefused, match=r"(?s)Parse error in expression.*HasSingularity &&"):
            await place.schedd.submit(description, count=2)
    assert place.log.text == ""
    with pytest.raises(CondorRefused, match="HasSingularity &&"):
        await place.schedd.parse("HasSingularity &&")
    assert await place.schedd.parse("A=?=1 &&(b)") == "A is 1 && (b)"


async def test_a_line_break_in_a_value_is_refused(place: Place) -> None:
    with pytest.raises(CondorRefused):
        await place.schedd.submit(place.describe("exit 0", arguments="x\n+Evil = 1"), count=1)


async def test_notes_name_the_taskforce_on_the_submit_events(place: Place) -> None:
    idle: dict[str, Any] = {"requirements": "HasNoSuchThing =?= true", "max_idle": 1}
    await place.schedd.submit(place.describe("exit 0", **idle), count=2)
    log = await place.until("submitted", lambda log: log.count(0) == 1)
    for event in log.events(0, 35):
        assert event.endswith(f">\n    EWMSTaskforceUUID={place.uuid}")
    await place.schedd.act("remove", place.mine, reason="enough")
    await place.until_gone()


async def test_plain_notes_are_lost_to_structured_ones(place: Place) -> None:
    idle: dict[str, Any] = {"requirements": "HasNoSuchThing =?= true"}
    notes = {"submit_event_notes": "lost", "batch_name": "b n"}
    await place.schedd.submit(place.describe("exit 0", **idle, **notes), count=1)
    log = await place.until("submitted", lambda log: log.count(0) == 1)
    assert log.events(0)[0].endswith(f'>\n    [ JobBatchName = "b n" ]\n    EWMSTaskforceUUID={place.uuid}')
    await place.schedd.act("remove", place.mine, reason="enough")


async def test_information_events_follow_all_but_generic_ones(place: Place) -> None:
    description = place.describe("python3 chirp.py 'ulog hello'", job_ad_information_attrs="EWMSTaskforceUUID")
    await place.schedd.submit(description, count=1)
    log = await place.until("terminated", lambda log: log.count(5) == 1 and log.text.rstrip().endswith("..."))
    await place.until_gone()
    assert [number for number in place.log.procs()[0] if number != 28] == [0, 1, 8, 5]
    about = [re.search(r"^TriggerEventTypeNumber = (\d+)$", event, re.MULTILINE) for event in log.events(28)]
    numbers = [int(match[1]) for match in about if match]
    assert [number for number in numbers if number not in BACKGROUND][:2] == [0, 1]
    assert all(f'\nEWMSTaskforceUUID = "{place.uuid}"\n' in event for event in log.events(28))


async def test_priorities_are_computed_for_each_proc(place: Place) -> None:
    idle: dict[str, Any] = {"requirements": "HasNoSuchThing =?= true"}
    await place.schedd.submit(place.describe("exit 0", priority="99 - ( ($(ProcId) * 49) / 3 )", **idle), count=4)
    ads = await place.schedd.query(place.mine, ["JobPrio"])
    assert sorted(int(str(ad["JobPrio"])) for ad in ads) == [50, 67, 83, 99]
    await place.schedd.act("remove", place.mine, reason="enough")


# --- asking ---


async def test_asking_for_nothing_is_an_empty_answer(place: Place) -> None:
    assert await place.schedd.query(place.mine, [], cluster_ads=True) == []
    assert await place.schedd.history(place.mine, [], match=1) == []
    acted = await place.schedd.act("remove", place.mine, reason="nothing")
    assert (acted.succeeded, acted.failed) == (0, 0)


async def test_an_action_that_does_not_fit_the_state_is_neither_done_nor_failed(place: Place) -> None:
    idle: dict[str, Any] = {"requirements": "HasNoSuchThing =?= true"}
    await place.schedd.submit(place.describe("exit 0", **idle), count=1)
    for action in ("release", "vacate"):
        acted = await place.schedd.act(action, place.mine, reason="nothing")
        assert (acted.succeeded, acted.failed) == (0, 0)
    assert place.log.procs() == {0: [0]}
    acted = await place.schedd.act("remove", place.mine, reason="two\nlines")
    assert (acted.succeeded, acted.failed) == (1, 0)
    log = await place.until("removed", lambda log: log.count(9) == 1)
    assert re.search(r"\n\ttwo.lines \(by user \w+\)$", log.events(9)[0])


@pytest.mark.parametrize("constraint", ["ClusterId ==", ""])
async def test_a_bad_constraint_is_refused(place: Place, constraint: str) -> None:
    for call in (place.schedd.query, place.schedd.history):
        with pytest.raises(CondorRefused):
            await call(constraint, ["ProcId"])
    with pytest.raises(CondorRefused):
        await place.schedd.act("hold", constraint, reason="r")


async def test_history_ends_at_since(place: Place) -> None:
    first = await place.schedd.submit(place.describe("exit 0"), count=1)
    await place.until("terminated", lambda log: log.count(5) == 1)
    second = await place.schedd.submit(place.describe("exit 0"), count=1)
    await place.until("terminated", lambda log: log.count(5) == 2)
    await place.until_gone()
    since = str(first.cluster_id)
    assert await place.schedd.history(place.mine, ["ClusterId"], since=since) == [{"ClusterId": second.cluster_id}]


async def test_the_access_point_knows_its_name(place: Place) -> None:
    assert await place.schedd.param("FULL_HOSTNAME")
    assert await place.schedd.param("EWMS_NO_SUCH_KNOB") is None
