"""The judge of the sweep: each kind of wrong must be seen, or the sweep proves nothing."""

from typing import Any

import attrs
import pytest

from ewms.wms.converter import read
from ewms.wms.models import Taskforce
from tests.sweep.cases import End
from tests.sweep.truth import Call, Evidence, LoggedCluster, judge, judge_running, order_problems, read_log

UUID = "TF-1-2-3-4"
LOG = "/jobs/2026-11-21.tms.jel"
COMPLETED = {"COMPLETED": {"Done": 1}, "REMOVED": {"null": 1}}
CALLS = [
    Call("GET:taskforce", 200),
    Call("POST:condor-submit", 200),
    Call("POST:condor-submit", 404),
    Call("POST:statuses", 200),
    Call("POST:condor-rm", 200),
    Call("POST:statuses", 200),
    Call("POST:condor-complete", 200),
    Call("POST:query", 200),
]
"""Of a good life."""


def entry(phase: str, *, was_successful: bool = True) -> dict[str, Any]:
    return {
        "target_phase": phase,
        "timestamp": 1.0,
        "was_successful": was_successful,
        "source_event_time": None,
        "source_entity": "TMS",
        "context": "",
    }


def taskforce(**changes: Any) -> Taskforce:
    document = {
        "taskforce_uuid": UUID,
        "task_id": "TK-1",
        "workflow_id": "WF-1",
        "timestamp": 1.0,
        "priority": 50,
        "collector": None,
        "schedd": "ap",
        "n_workers": 2,
        "pilot_config": {"tag": "1", "image_source": "cvmfs", "environment": {}, "input_files": []},
        "worker_config": {
            "do_transfer_worker_stdouterr": True,
            "max_worker_runtime": 1,
            "n_cores": 1,
            "priority": 50,
            "worker_disk": 1,
            "worker_memory": 1,
            "condor_requirements": "",
        },
        "cluster_id": 7,
        "submit_dict": {"universe": "container"},
        "job_event_log_fpath": LOG,
        "phase": "condor-complete",
        "phase_change_log": [entry("condor-submit"), entry("condor-rm"), entry("condor-complete")],
        "compound_statuses": COMPLETED,
        "top_task_errors": {},
    }
    return read(Taskforce, document | changes, "taskforce")


def ended() -> LoggedCluster:
    return LoggedCluster(LOG, {0, 1}, {0, 1}, is_removed=True)


ENTRY = {"stop_began_at": 5.0, "stopped_at": 6.0, "completed_at": 7.0}
GOOD = Evidence(
    frozenset(), frozenset({7}), {7: ended()}, taskforce(), has_envfile=True, bystander_lives=True, entry=ENTRY
)
RUNNING = Evidence(
    frozenset({7}), frozenset(), {7: LoggedCluster(LOG, {0, 1})}, taskforce(phase="condor-submit"), True, True, {}
)


def but(evidence: Evidence, **changes: Any) -> Evidence:
    return attrs.evolve(evidence, **changes)


def test_a_good_life_is_good() -> None:
    assert judge(End.COMPLETED, 2, GOOD, CALLS) == []
    assert judge_running(2, RUNNING) == []


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (but(GOOD, history=frozenset({7, 8})), "2 clusters: [7, 8]"),
        (but(GOOD, queue=frozenset({7})), "left in the queue: [7]"),
        (but(GOOD, taskforce=taskforce(cluster_id=8)), "the WMS has cluster 8"),
        (but(GOOD, taskforce=taskforce(cluster_id=None)), "the WMS has cluster None"),
        (but(GOOD, taskforce=taskforce(n_workers=0)), "0 workers"),
        (but(GOOD, taskforce=taskforce(submit_dict={})), "not told the submit description"),
        (but(GOOD, taskforce=taskforce(job_event_log_fpath="/x")), "the WMS has the log /x"),
        (but(GOOD, taskforce=taskforce(phase="condor-rm")), "the WMS has it as condor-rm"),
        (but(GOOD, taskforce=taskforce(compound_statuses={"IDLE": {"null": 2}})), "not the end"),
        (but(GOOD, taskforce=taskforce(compound_statuses={"REMOVED": {"null": 1}})), "not the end"),
        (but(GOOD, bystander_lives=False), "another taskforce's cluster was harmed"),
        (but(GOOD, entry=ENTRY | {"completed_at": None}), "completed, but the ledger does not know it"),
        (but(GOOD, entry=ENTRY | {"stopped_at": None}), "stopped, but the ledger does not know it"),
        (
            but(GOOD, taskforce=taskforce(phase_change_log=[entry("condor-submit"), *[entry("condor-complete")] * 2])),
            "condor-complete 2 times",
        ),
    ],
)
def test_what_is_wrong_at_the_end_is_seen(evidence: Evidence, problem: str) -> None:
    assert any(problem in each for each in judge(End.COMPLETED, 2, evidence, CALLS))


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (but(RUNNING, queue=frozenset()), "only [] are in the queue"),
        (but(RUNNING, queue=frozenset({7, 8})), "2 clusters: [7, 8]"),
        (but(RUNNING, logged={7: LoggedCluster(LOG, {0, 1}, {1})}), "jobs of the healthy cluster 7 have ended"),
        (but(RUNNING, has_envfile=False), "envfile"),
    ],
)
def test_what_is_wrong_with_a_running_one_is_seen(evidence: Evidence, problem: str) -> None:
    assert any(problem in each for each in judge_running(2, evidence))


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ([CALLS[3], *CALLS], "not once and first"),
        ([*CALLS[:3], CALLS[1], *CALLS[3:]], "not once and first"),
        ([*CALLS, CALLS[3]], "not once and last"),
        ([*CALLS, CALLS[-2]], "not once and last"),
        ([call for call in CALLS if call.name != "POST:condor-rm"], "the stop was not confirmed"),
        ([call for call in CALLS if call.name != "POST:statuses"], "no statuses"),
        ([*CALLS[:-3], CALLS[-2]], "the last statuses do not come after the stop"),
        ([Call("POST:condor-submit/failed", 200), *CALLS], "told of a failure: condor-submit/failed"),
    ],
)
def test_a_wrong_order_of_calls_is_seen(calls: list[Call], problem: str) -> None:
    assert any(problem in each for each in order_problems(calls))


def test_a_cluster_that_ended_by_itself_has_no_stop() -> None:
    calls = [call for call in CALLS if call.name != "POST:condor-rm"]
    assert order_problems(calls, stop_must_be_told=False) == []


WITHDRAWN = taskforce(phase="pending-stopper", cluster_id=None)


@pytest.mark.parametrize(
    ("evidence", "calls", "problem"),
    [
        (but(GOOD, taskforce=WITHDRAWN, logged={}, history=frozenset()), [], None),
        (but(GOOD, taskforce=WITHDRAWN), [Call("POST:condor-submit", 404)], None),
        (but(GOOD, taskforce=WITHDRAWN), CALLS[1:2], "the WMS was told"),
        (but(GOOD, taskforce=WITHDRAWN, queue=frozenset({7})), [], "left in the queue"),
        (but(GOOD, taskforce=WITHDRAWN, logged={7: LoggedCluster(LOG, {0})}), [], "was not removed"),
        (but(GOOD, taskforce=taskforce(phase="pending-stopper")), [], "cluster 7"),
        (but(GOOD, taskforce=WITHDRAWN, history=frozenset({8})), [], "2 clusters"),
    ],
)
def test_a_withdrawn_order_leaves_nothing(evidence: Evidence, calls: list[Call], problem: str | None) -> None:
    problems = judge(End.WITHDRAWN, 2, evidence, calls)
    assert (problems == []) if problem is None else any(problem in each for each in problems)


REFUSED = taskforce(
    phase="pending-starter",
    cluster_id=None,
    phase_change_log=[entry("pending-starter"), *[entry("condor-submit", was_successful=False)] * 3],
)
NOTHING = but(GOOD, taskforce=REFUSED, logged={}, history=frozenset())


@pytest.mark.parametrize(
    ("evidence", "calls", "problem"),
    [
        (NOTHING, [Call("POST:condor-submit/failed", 200)] * 3, None),
        (NOTHING, CALLS[1:2], "was told ['condor-submit']"),
        (but(NOTHING, history=frozenset({7})), [], "there are clusters: [7]"),
        (but(NOTHING, taskforce=taskforce(phase="pending-starter")), [], "pending-starter with 0 failures"),
    ],
)
def test_a_refused_order_makes_three_failures_and_nothing_else(
    evidence: Evidence, calls: list[Call], problem: str | None
) -> None:
    problems = judge(End.REFUSED, 2, evidence, calls)
    assert (problems == []) if problem is None else any(problem in each for each in problems)


def test_a_log_is_read_for_one_taskforce() -> None:
    note = f"    EWMSTaskforceUUID={UUID}"
    text = "\n".join(
        [
            f"035 (007.-01.000) 2026-11-21 20:00:00 Cluster submitted from host: <h>\n{note}\n...",
            f"000 (007.000.000) 2026-11-21 20:00:00 Job submitted from host: <h>\n{note}\n...",
            "000 (008.000.000) 2026-11-21 20:00:00 Job submitted from host: <h>\n    EWMSTaskforceUUID=TF-other\n...",
            "009 (007.000.000) 2026-11-21 20:00:01 Job was aborted.\n\ta reason\n...",
            "036 (007.-01.000) 2026-11-21 20:00:01 Cluster removed\n\tMaterialized 1 jobs.\tIncomplete\n...",
            "",
        ]
    )
    assert read_log(LOG, text, UUID) == {7: LoggedCluster(LOG, {0}, {0}, is_removed=True)}
