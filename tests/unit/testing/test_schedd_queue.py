"""The embedded schedd's queue without any worker: states, policies, materialization, and what is written."""

import re
from typing import Any

import attrs
import pytest

pytest.importorskip("classad2")

from ewms.testing.schedd.jobs import Ended, Job, fate
from ewms.testing.schedd.logtext import Usage
from ewms.testing.schedd.machine import machine_ad
from ewms.testing.schedd.queue import Queue, QueueRefused

BASE = {"universe": "container", "container_image": "i", "log": "/log", "+U": '"u"'}


@attrs.define
class Desk:
    """A queue, its log in memory, and its clock."""

    written: list[bytes] = attrs.field(factory=list)
    now: float = 1_795_300_000.0
    queue: Queue = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = Queue(
            name="ap.example.org",
            machine=machine_ad("ap.example.org", 4, {"GLIDEIN_Site": '"Here"'}),
            journal=lambda _path, events: self.written.extend(events),
            clock=lambda: self.now,
            wake=lambda: None,
            environ={},
        )

    def submit(self, count: int = 1, **commands: Any) -> int:
        return self.queue.submit({**BASE, **commands}, count)["cluster_id"]

    def events(self) -> list[str]:
        """`NUMBER.PROC` of what was written, without sizes and transfers."""
        found = [re.match(rb"(\d{3}) \(\d+\.(-?\d+)", each) for each in self.written]
        return [f"{int(match[1])}.{int(match[2])}" for match in found if match and match[1] not in (b"006", b"040")]

    def job(self, cluster: int = 1, proc: int = 0) -> Job:
        return self.queue.clusters[cluster].jobs[proc]

    def start(self, *procs: int) -> None:
        for proc in procs or (0,):
            self.job(proc=proc).run = Worker()
            self.queue.begin(self.job(proc=proc))
            self.queue.executes(self.job(proc=proc), "slot1_1@ap", "/scratch")

    def end(self, proc: int = 0, exit_code: int | None = 0, signal: int | None = None) -> None:
        job, ended = self.job(proc=proc), Ended(exit_code, signal, Usage())
        if job.stop is None:
            self.queue.count_end(job, ended)
        self.queue.settle(job, fate(job, ended))


class Worker:
    def __init__(self) -> None:
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def desk() -> Desk:
    return Desk()


ROWS = [
    # what is submitted, what is done, what is in the log of proc 0
    ({}, ["start", "end"], [0, 1, 5]),
    ({}, ["start", "killed"], [0, 1, 5]),
    ({}, ["start", "remove", "end"], [0, 1, 4, 9]),
    ({}, ["start", "hold", "end"], [0, 1, 4, 12]),
    ({}, ["start", "vacate", "end", "start", "end"], [0, 1, 4, 1, 5]),
    ({}, ["start", "hold", "remove", "end"], [0, 1, 4, 9]),
    ({}, ["start", "remove", "hold", "end"], [0, 1, 4, 9]),
    ({}, ["hold", "release", "start", "end"], [0, 12, 13, 1, 5]),
    ({}, ["hold", "hold", "remove"], [0, 12, 9]),
    ({}, ["remove"], [0, 9]),
    ({"on_exit_hold": "ExitCode =!= 0"}, ["start", "failed"], [0, 1, 12]),
    ({"on_exit_remove": "ExitCode =?= 0"}, ["start", "failed", "start", "end"], [0, 1, 4, 1, 5]),
    ({"max_retries": 1}, ["start", "failed", "start", "failed"], [0, 1, 4, 1, 5]),
    ({"periodic_hold": "JobStatus == 2"}, ["start", "policies", "end"], [0, 1, 12]),
    ({"periodic_hold": "JobStatus == 1"}, ["policies"], [0, 12]),
    ({"periodic_remove": "JobStatus == 2"}, ["start", "policies", "end"], [0, 1, 9]),
    ({"periodic_remove": "JobStatus == 5"}, ["hold", "policies"], [0, 12, 9]),
    ({"periodic_release": "JobStatus == 5"}, ["hold", "policies"], [0, 12, 13]),
    ({"leave_in_queue": "true"}, ["start", "end", "remove"], [0, 1, 5, 9]),
]


@pytest.mark.parametrize(("commands", "steps", "expected"), ROWS, ids=lambda value: "-".join(map(str, value)))
def test_the_life_of_a_job(desk: Desk, commands: dict[str, Any], steps: list[str], expected: list[int]) -> None:
    desk.submit(**commands)
    for step in steps:
        match step:
            case "start":
                desk.start()
            case "end":
                desk.end()
            case "failed":
                desk.end(exit_code=3)
            case "killed":
                desk.end(exit_code=None, signal=9)
            case "policies":
                desk.queue.apply_policies()
            case action:
                desk.queue.act(action, "true", "because")
    assert desk.events() == [f"{number}.0" for number in expected]
    gone = expected[-1] in (5, 9) and "leave_in_queue" not in commands
    assert (1 not in desk.queue.clusters) == (gone or steps[-1] == "remove")


def test_a_stopping_worker_is_stopped_once_and_shown_as_it_will_be(desk: Desk) -> None:
    desk.submit()
    desk.start()
    worker = desk.job().run
    assert isinstance(worker, Worker)
    desk.queue.act("hold", "true", "look")
    assert desk.queue.query("true", ["JobStatus"])[0]["JobStatus"] == 5
    assert desk.events() == ["0.0", "1.0"]
    assert desk.queue.act("hold", "true", "again") == {"succeeded": 0, "failed": 0}
    assert worker.stopped == 1


def test_a_factory_keeps_as_many_idle_as_it_may(desk: Desk) -> None:
    desk.submit(5, max_idle=2)
    desk.queue.materialize()
    assert desk.events() == ["35.-1", "0.0", "0.1"]
    desk.start(0)
    desk.queue.materialize()
    assert desk.events()[3:] == ["1.0", "0.2"]
    desk.start(1, 2)
    desk.queue.materialize()
    for proc in range(3, 5):
        desk.start(proc)
    for proc in range(5):
        desk.end(proc)
    desk.queue.materialize()
    assert desk.events()[-1] == "36.-1"
    assert b"\tMaterialized 5 jobs from 0 items.\tComplete\n" in desk.written[-1]
    assert desk.queue.clusters == {}


def test_max_materialize_limits_those_in_the_queue(desk: Desk) -> None:
    desk.submit(5, max_materialize=2)
    desk.queue.materialize()
    desk.start(0)
    desk.queue.materialize()
    assert desk.events() == ["35.-1", "0.0", "0.1", "1.0"]
    desk.end(0)
    desk.queue.materialize()
    assert desk.events()[-2:] == ["5.0", "0.2"]


def test_a_row_that_cannot_be_made_pauses_the_factory(desk: Desk) -> None:
    # The priority of proc 1 is a division by zero.
    desk.submit(3, max_idle=3, priority="10 / (1 - $(ProcId))")
    desk.queue.materialize()
    assert desk.events() == ["35.-1", "37.-1", "0.0"]
    assert b"HoldCode" not in desk.written[1]
    desk.queue.materialize()
    assert len(desk.written) == 3


def test_a_cluster_is_one_ad_whether_or_not_it_is_a_factory(desk: Desk) -> None:
    desk.submit(3)
    desk.submit(3, max_idle=1)
    assert len(desk.queue.query("true", [])) == 3
    clusters = desk.queue.query("ProcId =?= undefined", ["ClusterId", "TotalSubmitProcs", "JobsIdle"], cluster_ads=True)
    expected = {"TotalSubmitProcs": 3, "ServerTime": int(desk.now)}
    assert clusters == [{"ClusterId": 1, "JobsIdle": 3, **expected}, {"ClusterId": 2, "JobsIdle": 0, **expected}]


def test_the_best_priority_starts_first_and_only_what_matches(desk: Desk) -> None:
    desk.submit(2, priority="10 * $(ProcId)")
    desk.submit(1, priority="5", requirements='GLIDEIN_Site == "Here" && TARGET.Memory >= RequestMemory')
    desk.submit(1, priority="99", requirements='GLIDEIN_Site =!= "Here"')
    desk.submit(1, priority="99", request_cpus="1000000")
    assert [(job.cluster, job.proc) for job in desk.queue.startable(10)] == [(1, 1), (2, 0), (1, 0)]
    assert [(job.cluster, job.proc) for job in desk.queue.startable(1)] == [(1, 1)]


def test_history_is_newest_first_and_bounded(desk: Desk) -> None:
    for _ in range(3):
        desk.submit()
    desk.queue.act("remove", "true", "because")
    assert [ad["ClusterId"] for ad in desk.queue.history("true", ["ClusterId"])] == [3, 2, 1]
    assert [ad["ClusterId"] for ad in desk.queue.history("true", ["ClusterId"], match=1)] == [3]
    assert [ad["ClusterId"] for ad in desk.queue.history("true", ["ClusterId"], since="1")] == [3, 2]
    assert [ad["ClusterId"] for ad in desk.queue.history("true", ["ClusterId"], since="ClusterId == 2")] == [3]
    (ad,) = desk.queue.history("ClusterId == 2", ["JobStatus", "RemoveReason"])
    assert ad["JobStatus"] == 3
    assert str(ad["RemoveReason"]).startswith("because (by user ")


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ({"submit_event_notes": "N", "submit_event_user_notes": "U"}, ["N", "U"]),
        ({"submit_event_user_notes": "U"}, ["U"]),
        ({"submit_event_notes": "lost", "batch_name": "b n"}, ['[ JobBatchName = "b n" ]']),
        ({"submit_event_notes_attrs": "U"}, ['[ U = "u" ]']),
    ],
)
def test_notes(desk: Desk, notes: dict[str, Any], expected: list[str]) -> None:
    desk.submit(**notes)
    assert desk.written[0].decode().splitlines()[1:-1] == [f"    {note}" for note in expected]


def test_information_events_when_they_are_asked_for(desk: Desk) -> None:
    desk.submit(job_ad_information_attrs="U,Nope")
    assert desk.events() == ["0.0", "28.0"]
    assert b'\nU = "u"\n' in desk.written[1]
    assert b"Nope" not in desk.written[1]


def test_without_a_log_nothing_is_written(desk: Desk) -> None:
    desk.queue.submit({"universe": "container", "container_image": "i", "max_idle": 1}, 2)
    desk.queue.materialize()
    desk.queue.act("remove", "true", "r")
    assert desk.written == []


def test_what_is_refused(desk: Desk) -> None:
    for call in (
        lambda: desk.submit(requirements="a &&"),
        lambda: desk.queue.query("a &&", []),
        lambda: desk.queue.history("true", [], since="a &&"),
        lambda: desk.queue.act("explode", "true", "r"),
        lambda: desk.queue.parse(""),
    ):
        with pytest.raises(QueueRefused):
            call()
    assert desk.submit() == 1  # a refused submission takes no cluster id


# --- what policies look at ---


def test_holds_are_counted_by_their_reasons(desk: Desk) -> None:
    desk.submit(periodic_hold="NumJobStarts == 1 && (NumHolds ?: 0) == 1")
    desk.queue.act("hold", "ClusterId == 1", "look")
    desk.queue.act("release", "ClusterId == 1", "go on")
    assert (desk.job().ad["LastHoldReasonCode"], "HoldReasonCode" in desk.job().ad) == (1, False)
    desk.start()
    desk.queue.apply_policies()
    desk.end()
    assert desk.job().ad["NumHolds"] == 2
    assert dict(desk.job().ad["NumHoldsByReason"]) == {"UserRequest": 1, "JobPolicy": 1}


def test_a_person_may_make_a_hold_theirs(desk: Desk) -> None:
    desk.submit(periodic_hold="JobStatus == 1", periodic_release="HoldReasonCode == 3")
    desk.queue.apply_policies()
    assert desk.job().ad["HoldReasonCode"] == 3
    assert desk.queue.act("hold", "ClusterId == 1", "mine")["succeeded"] == 1
    desk.queue.apply_policies()
    assert (desk.job().ad["HoldReasonCode"], desk.events()) == (1, ["0.0", "12.0", "12.0"])


def test_a_job_that_ended_is_matched_by_its_own_past(desk: Desk) -> None:
    desk.submit(
        2,
        on_exit_remove="ExitCode =?= 0",
        job_machine_attrs="Machine",
        requirements="TARGET.Machine =!= MachineAttrMachine0 || time() - JobCurrentFinishTransferOutputDate > 60",
    )
    assert len(desk.queue.startable(4)) == 2
    desk.start()
    desk.now = float(str(desk.queue.evaluate("time()")))  # what the expression goes by
    desk.end(exit_code=1)
    assert desk.job().ad["MachineAttrMachine0"] == "ap.example.org"
    assert [job.proc for job in desk.queue.startable(4)] == [1]
    desk.job().ad["JobCurrentFinishTransferOutputDate"] -= 61
    assert [job.proc for job in desk.queue.startable(4)] == [0, 1]


@pytest.mark.parametrize("expression", ["undefined", "1/0", "x + 1", "{1}", "1 +"])
def test_what_has_no_value_is_refused(desk: Desk, expression: str) -> None:
    assert desk.queue.evaluate("(3 * 49) / 2") == 73
    with pytest.raises(QueueRefused):
        desk.queue.evaluate(expression)
