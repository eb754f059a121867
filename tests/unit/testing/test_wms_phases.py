"""The stand-in's state machine, with its traps."""

from typing import Any

import pytest

from ewms.testing.wms import phases
from ewms.testing.wms.phases import Document, Step, advance, next_to_start, next_to_stop
from ewms.testing.wms.problems import Problem
from ewms.wms.models import Phase


def taskforce(phase: Phase = Phase.PENDING_STARTER, **changes: Any) -> Document:
    return {
        "taskforce_uuid": "TF-1",
        "schedd": "S",
        "priority": 50,
        "timestamp": 1.0,
        "cluster_id": None,
        "phase": str(phase),
        "phase_change_log": [],
        **changes,
    }


ANY = frozenset(Phase)


@pytest.mark.parametrize(
    ("step", "taken_in", "leads_to"),
    [
        (phases.MQ_ACTIVATED, {Phase.PRE_MQ_ACTIVATION}, Phase.PRE_LAUNCH),
        (phases.LAUNCHED, {Phase.PRE_LAUNCH}, Phase.PENDING_STARTER),
        (phases.START_CONFIRMED, {Phase.PENDING_STARTER}, Phase.CONDOR_SUBMIT),
        (phases.START_FAILED, ANY, None),
        (
            phases.STOP_ASKED,
            {Phase.PRE_MQ_ACTIVATION, Phase.PRE_LAUNCH, Phase.PENDING_STARTER, Phase.CONDOR_SUBMIT},
            Phase.PENDING_STOPPER,
        ),
        (phases.STOP_CONFIRMED, ANY, Phase.CONDOR_RM),
        (phases.STOP_FAILED, ANY, None),
        (phases.COMPLETED, ANY, Phase.CONDOR_COMPLETE),
    ],
)
def test_which_step_is_taken_in_which_phase(step: Step, taken_in: set[Phase], leads_to: Phase | None) -> None:
    for phase in Phase:
        before = taskforce(phase)
        if phase not in taken_in:
            with pytest.raises(Problem) as caught:
                advance(before, step, 7.0)
            assert caught.value.status == 404
            continue
        after = advance(before, step, 7.0, context="why", source_event_time=3)
        assert after["phase"] == (leads_to or phase)
        assert after["phase_change_log"] == [
            {
                "target_phase": step.target,
                "timestamp": 7.0,
                "source_event_time": 3,
                "was_successful": leads_to is not None,
                "source_entity": step.entity,
                "context": "why",
            }
        ]
        assert before["phase_change_log"] == []


def test_a_late_removal_overwrites_completion_and_every_repeat_is_logged() -> None:
    changed = taskforce(Phase.CONDOR_SUBMIT)
    for step in (phases.COMPLETED, phases.COMPLETED, phases.STOP_CONFIRMED):
        changed = advance(changed, step, 1.0)
    assert changed["phase"] == Phase.CONDOR_RM
    assert len(changed["phase_change_log"]) == 3


def failed(document: Document, times: int, step: Step = phases.START_FAILED) -> Document:
    for _ in range(times):
        document = advance(document, step, 1.0)
    return document


def test_who_starts_first() -> None:
    ranked = [
        taskforce(taskforce_uuid="urgent", priority=99, timestamp=9.0),
        taskforce(taskforce_uuid="oldest", timestamp=1.0),
        taskforce(taskforce_uuid="younger", timestamp=2.0),
        failed(taskforce(taskforce_uuid="failed once", timestamp=0.0), 1),
        failed(taskforce(taskforce_uuid="failed twice", timestamp=0.0), 2),
    ]
    never = [
        failed(taskforce(taskforce_uuid="failed thrice", priority=100), 3),
        taskforce(taskforce_uuid="elsewhere", priority=100, schedd="other"),
        taskforce(Phase.PRE_LAUNCH, taskforce_uuid="not yet", priority=100),
    ]
    waiting = [*reversed(ranked), *never]
    for expected in ranked:
        first = next_to_start(waiting, "S")
        assert first is expected
        waiting.remove(expected)
    assert next_to_start(waiting, "S") is None


def test_only_what_has_a_cluster_is_stopped_and_failures_never_end_the_offer() -> None:
    without = taskforce(Phase.PENDING_STOPPER, priority=100)
    stubborn = failed(taskforce(Phase.PENDING_STOPPER, cluster_id=1), 5, phases.STOP_FAILED)
    assert next_to_stop([without, stubborn], "S") is stubborn
    fresh = taskforce(Phase.PENDING_STOPPER, cluster_id=2, timestamp=5.0)
    assert next_to_stop([without, stubborn, fresh], "S") is fresh
    assert next_to_stop([without], "S") is None
