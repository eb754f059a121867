"""Each judge of chaos says nothing of a good end, and catches what is planted into it."""

from typing import Any

import attrs
import pytest

from tests.chaos.invariants import (
    Fate,
    Flow,
    Harm,
    Output,
    judge_fate,
    judge_file,
    judge_flow,
    judge_listening,
    judge_orphans,
    leaks,
)

OUTPUTS = [Output("a", "1"), Output("b", "2"), Output("c", "3")]
FLOW = Flow("TF-1", ["a", "b", "c"], OUTPUTS, [], ran_to_its_end=True, interruptions=1)
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


@pytest.mark.parametrize(
    "changes",
    [{"left": ["a", "b"]}, {"outputs": [*OUTPUTS, *OUTPUTS[:2]]}, {"outputs": [*OUTPUTS, *OUTPUTS[:1]], "left": ["c"]}],
    ids=["to-be-done-again", "done-again", "one-of-each"],
)
def test_more_events_with_duplicates_than_its_pilots_were_interrupted_are_caught(changes: dict[str, Any]) -> None:
    flow = attrs.evolve(FLOW, **changes, ran_to_its_end=False, interruptions=2)
    assert judge_flow(flow) == []
    (said,) = judge_flow(attrs.evolve(flow, interruptions=1))
    assert "2 events have duplicates, but its pilots were interrupted only 1 times: " in said


def test_one_interruption_may_give_one_event_several_duplicates() -> None:
    flow = attrs.evolve(FLOW, outputs=[*OUTPUTS, OUTPUTS[0], OUTPUTS[0]], left=["a"])
    assert (flow.duplicates, flow.repeated) == (3, ["a"])
    assert judge_flow(attrs.evolve(flow, ran_to_its_end=False)) == []


@pytest.mark.parametrize(("consumers", "is_wrong"), [(4, False), (3, True), (5, True), (0, True), (None, False)])
def test_a_pilot_that_does_not_listen_is_caught_and_a_consumer_that_is_no_pilot(
    consumers: int | None, is_wrong: bool
) -> None:
    assert bool(judge_listening("TF-1", consumers, 4)) is is_wrong


def document(**changes: Any) -> dict[str, Any]:
    log = [
        {"target_phase": phase, "was_successful": True, "timestamp": at}
        for phase, at in (("condor-submit", 110.0), ("condor-complete", 150.0))
    ]
    return {
        "timestamp": 100.0,
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
    harms = [Harm(120, 125)]
    assert judge_fate(attrs.evolve(FATE, document=short, harms=harms)) == []
    living = document(compound_statuses={"IDLE": {"null": 1}})
    assert judge_fate(attrs.evolve(FATE, document=living, harms=harms)) != []


@pytest.mark.parametrize(
    ("harm", "is_excused"),
    [
        (Harm(80, 90), False),
        (Harm(80, 105), True),
        (Harm(120, 125), True),
        (Harm(149), True),
        (Harm(160, 170), False),
        (Harm(90), True),
    ],
    ids=["before-it", "at-its-begin", "meanwhile", "at-its-end", "after-it", "all-the-time"],
)
def test_only_who_lived_while_the_log_was_harmed_may_have_wrong_counts(harm: Harm, is_excused: bool) -> None:
    short = document(compound_statuses={"REMOVED": {"Tasking": 1}})
    assert (judge_fate(attrs.evolve(FATE, document=short, harms=[Harm(1, 2), harm])) == []) is is_excused


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
