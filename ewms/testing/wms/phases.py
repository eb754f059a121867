"""A taskforce's life at the WMS: one table of steps, and who is served next. Pure; the traps are on purpose.

- A confirmed start matches `pending-starter` only: the second confirm is a 404, whoever lost the first one's answer.
- `condor-rm` and `condor-complete` are taken in any phase, and a late one overwrites the other.
- Every `/failed` and every repeated `condor-complete` adds an entry to the log, in any phase.
- A taskforce that is stopped before its cluster is known stays `pending-stopper` and is never offered to anybody.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs

from ewms.testing.wms.problems import Problem
from ewms.wms.models import Phase

Document = dict[str, Any]

MAX_FAILURES: Final = 3
"""After so many failed starts a taskforce is offered no more."""

OPEN: Final = frozenset(Phase) - {Phase.PENDING_STOPPER, Phase.CONDOR_RM, Phase.CONDOR_COMPLETE}
"""What a user's finish or abort stops."""


@attrs.frozen
class Step:
    """Something that happens to a taskforce."""

    target: Phase
    entity: str
    """Who did it, for the log."""
    matches: frozenset[Phase] | None = None
    """The phases in which it is taken; None: any."""
    succeeds: bool = True
    """A failed attempt is logged and leaves the phase."""


MQ_ACTIVATED: Final = Step(Phase.PRE_LAUNCH, "Workflow MQ Activator", frozenset({Phase.PRE_MQ_ACTIVATION}))
LAUNCHED: Final = Step(Phase.PENDING_STARTER, "Taskforce Launch Control", frozenset({Phase.PRE_LAUNCH}))
START_CONFIRMED: Final = Step(Phase.CONDOR_SUBMIT, "TMS", frozenset({Phase.PENDING_STARTER}))
START_FAILED: Final = Step(Phase.CONDOR_SUBMIT, "TMS", succeeds=False)
STOP_ASKED: Final = Step(Phase.PENDING_STOPPER, "USER", OPEN)
STOP_CONFIRMED: Final = Step(Phase.CONDOR_RM, "TMS")
STOP_FAILED: Final = Step(Phase.CONDOR_RM, "TMS", succeeds=False)
COMPLETED: Final = Step(Phase.CONDOR_COMPLETE, "TMS")


def is_taken(taskforce: Document, step: Step) -> bool:
    """Whether the taskforce is in a phase in which this step can happen."""
    return step.matches is None or taskforce["phase"] in step.matches


def advance(
    taskforce: Document,
    step: Step,
    now: float,
    *,
    context: str = "",
    source_event_time: float | None = None,
    **changes: Any,
) -> Document:
    """The taskforce after this step, which happened at `now` (epoch s).

    Raises:
        Problem: 404, as the WMS says it, when the taskforce is in another phase.
    """
    if not is_taken(taskforce, step):
        raise Problem(404, f"no taskforce {taskforce['taskforce_uuid']} in phase {', '.join(step.matches or ())}")
    entry = {
        "target_phase": str(step.target),
        "timestamp": now,
        "source_event_time": source_event_time,
        "was_successful": step.succeeds,
        "source_entity": step.entity,
        "context": context,
    }
    phase = str(step.target) if step.succeeds else taskforce["phase"]
    log = [*taskforce["phase_change_log"], entry]
    return {**taskforce, **changes, "phase": phase, "phase_change_log": log}


def next_to_start(taskforces: Iterable[Document], schedd: str) -> Document | None:
    """Highest priority, then fewest failures, then oldest; three strikes and it is out."""
    waiting = [
        each
        for each in taskforces
        if each["schedd"] == schedd
        and each["phase"] == Phase.PENDING_STARTER
        and _failures(each, Phase.CONDOR_SUBMIT) < MAX_FAILURES
    ]
    return min(waiting, key=lambda each: _rank(each, Phase.CONDOR_SUBMIT), default=None)


def next_to_stop(taskforces: Iterable[Document], schedd: str) -> Document | None:
    """In the same order; only those that have a cluster, and without a limit on failures."""
    waiting = [
        each
        for each in taskforces
        if each["schedd"] == schedd and each["phase"] == Phase.PENDING_STOPPER and each["cluster_id"] is not None
    ]
    return min(waiting, key=lambda each: _rank(each, Phase.CONDOR_RM), default=None)


def _rank(taskforce: Document, target: Phase) -> tuple[int, int, float]:
    return (-taskforce["priority"], _failures(taskforce, target), taskforce["timestamp"])


def _failures(taskforce: Document, target: Phase) -> int:
    return sum(
        entry["target_phase"] == target and not entry["was_successful"] for entry in taskforce["phase_change_log"]
    )
