"""Each judge of chaos says nothing of a good end, and catches what is planted into it."""

from typing import Any

import attrs
import pytest

from tests.chaos.invariants import (
    Fate,
    Flow,
    Output,
    judge_duplicates,
    judge_fate,
    judge_file,
    judge_flow,
    judge_orphans,
    leaks,
)

OUTPUTS = [Output("a", "1"), Output("b", "2"), Output("c", "3")]
FLOW = Flow("TF-1", ["a", "b", "c"], OUTPUTS, [], ran_to_its_end=True)
JWT = b"eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOiAxNzAwMDAwMDAwfQ.bm90LXRydWx5LWEtc2lnbmF0dXJl"
SECRETS = {"the broker's token": b"s3cr3t-of-the-broker"}


def test_all_done_is_right() -> None:
    assert judge_flow(FLOW) == []
    assert (FLOW.lost, FLOW.duplicates) == ([], 0)


def test_a_lost_event_is_caught() -> None:
    flow = attrs.evolve(FLOW, outputs=OUTPUTS[:2])
    assert flow.lost == ["c"]
    assert any("1 events lost: c" in problem for problem in judge_flow(flow))


def test_an_event_of_a_stopped_workflow_may_be_left_but_not_one_that_had_all_the_time() -> None:
    stopped = attrs.evolve(FLOW, outputs=OUTPUTS[:2], left=["c"], ran_to_its_end=False)
    assert judge_flow(stopped) == []
    assert any("never done: c" in problem for problem in judge_flow(attrs.evolve(stopped, ran_to_its_end=True)))


def test_an_output_of_nothing_is_caught() -> None:
    assert any("nobody sent: x" in p for p in judge_flow(attrs.evolve(FLOW, outputs=[*OUTPUTS, Output("x", "9")])))


def test_a_duplicate_counts_and_must_have_the_id_of_the_first() -> None:
    twice = attrs.evolve(FLOW, outputs=[*OUTPUTS, Output("a", "1")])
    assert twice.duplicates == 1
    assert judge_flow(twice) == []
    unknown = attrs.evolve(FLOW, outputs=[*OUTPUTS, Output("a", "7")])
    assert any("cannot be told by their ids: a" in problem for problem in judge_flow(unknown))
    clash = attrs.evolve(FLOW, outputs=[*OUTPUTS[:2], Output("c", "2")])
    assert any("different events have one id" in problem for problem in judge_flow(clash))


def test_an_event_that_is_done_and_there_again_is_a_duplicate() -> None:
    assert attrs.evolve(FLOW, left=["a"]).duplicates == 1


def test_more_duplicates_than_interruptions_are_caught() -> None:
    flows = [attrs.evolve(FLOW, left=["a", "b"])]
    assert judge_duplicates(flows, 2) == []
    assert judge_duplicates(flows, 1) == ["2 duplicates, but pilots were interrupted only 1 times"]


def document(**changes: Any) -> dict[str, Any]:
    log = [{"target_phase": phase, "was_successful": True} for phase in ("condor-submit", "condor-complete")]
    return {
        "phase": "condor-complete",
        "cluster_id": 5,
        "n_workers": 2,
        "compound_statuses": {"REMOVED": {"Tasking": 1}, "COMPLETED": {"Done": 1}},
        "phase_change_log": log,
        **changes,
    }


FATE = Fate("TF-1", {5}, (), document())


def test_one_cluster_that_has_ended_is_right() -> None:
    assert judge_fate(FATE) == []


@pytest.mark.parametrize(
    ("changes", "caught"),
    [
        ({"clusters": {5, 6}}, "2 clusters: [5, 6]"),
        ({"clusters": set()}, "0 clusters"),
        ({"queued": {5}}, "is in the queue: [5]"),
        ({"document": document(cluster_id=6)}, "the WMS has cluster 6"),
        ({"document": document(phase="condor-rm")}, "the WMS has it as condor-rm"),
        ({"document": document(compound_statuses={"RUNNING": {"Tasking": 2}})}, "are not the end"),
        ({"document": document(compound_statuses={"HELD: why": {"Tasking": 2}})}, "are not the end"),
        ({"document": document(compound_statuses={"REMOVED": {"Tasking": 1}})}, "2 workers, the last statuses have 1"),
        ({"document": document(phase_change_log=document()["phase_change_log"] * 2)}, "heard of its start 2 times"),
        ({"document": document(phase_change_log=document()["phase_change_log"][::-1])}, "does not end with its end"),
        ({"document": document(phase_change_log=document()["phase_change_log"][:-1])}, "does not end with its end"),
    ],
)
def test_a_wrong_end_of_a_taskforce_is_caught(changes: dict[str, Any], caught: str) -> None:
    assert any(caught in problem for problem in judge_fate(attrs.evolve(FATE, **changes)))


def test_a_withdrawn_order_may_have_no_cluster_or_one_but_not_two() -> None:
    never = Fate("TF-1", (), (), document(phase="pending-stopper", cluster_id=None), was_withdrawn=True)
    assert judge_fate(never) == []
    assert judge_fate(attrs.evolve(never, clusters={4})) == []
    assert judge_fate(attrs.evolve(never, clusters={4, 5})) != []
    assert judge_fate(attrs.evolve(never, clusters={4}, queued={4})) != []


def test_counts_may_be_off_where_the_log_was_harmed_but_nothing_may_live() -> None:
    short = document(compound_statuses={"REMOVED": {"Tasking": 1}})
    assert judge_fate(attrs.evolve(FATE, document=short, log_was_harmed=True)) == []
    living = document(compound_statuses={"IDLE": {"null": 1}})
    assert judge_fate(attrs.evolve(FATE, document=living, log_was_harmed=True)) != []


def test_an_orphan_is_caught_and_what_was_there_before_is_none() -> None:
    assert judge_orphans("mounts", ["/", "/proc"], ["/proc", "/"]) == []
    assert judge_orphans("mounts", ["/"], ["/", "/", "/task"]) == ["2 mounts left: /, /task"]


def test_a_token_is_caught_wherever_it_stands() -> None:
    assert leaks("a log", b"all is well", SECRETS) == []
    assert [leak.secret for leak in leaks("a log", b"got s3cr3t-of-the-broker!", SECRETS)] == ["the broker's token"]
    assert [leak.secret for leak in leaks("a log", b"Bearer " + JWT, SECRETS)] == ["a signed token"]
    assert leaks("a log", b"", {"none": b""}) == []


@pytest.mark.parametrize(
    ("mode", "may_hold", "is_wrong"),
    [(0o100600, True, False), (0o100640, True, True), (0o100604, True, True), (0o100600, False, True)],
)
def test_a_file_with_a_secret_is_its_owners_alone_and_one_of_those_that_may(
    mode: int, may_hold: bool, is_wrong: bool
) -> None:
    found = judge_file("envfile", mode, b"export TOKEN='s3cr3t-of-the-broker'", SECRETS, may_hold=may_hold)
    assert bool(found) is is_wrong
    assert "s3cr3t" not in str(found)
