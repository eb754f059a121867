"""What an earlier run left half done (pure parts)."""

from typing import Any

import pytest

from ewms.tms.entries import Entry
from ewms.tms.reconcile import ended_at, leftovers

BASE: dict[str, Any] = {
    "taskforce_uuid": "TF-1",
    "log_path": "/jobs/x.jel",
    "n_workers": 4,
    "intended_at": 1.0,
    "confirmed_at": 2.0,
}


@pytest.mark.parametrize(
    ("changes", "is_open", "stops", "ends"),
    [
        ({}, True, 0, 0),
        ({}, False, 0, 1),
        ({"confirmed_at": None}, False, 0, 0),
        ({"withdrawn_at": 3.0}, False, 0, 0),
        ({"completed_at": 3.0}, False, 0, 0),
        ({"stop_began_at": 3.0}, True, 1, 0),
        ({"stop_began_at": 3.0}, False, 0, 1),
        ({"stop_began_at": 3.0, "stopped_at": 4.0}, True, 0, 0),
        ({"stop_began_at": 3.0, "completed_at": 5.0}, True, 0, 0),
    ],
)
def test_what_is_left(changes: dict[str, Any], is_open: bool, stops: int, ends: int) -> None:
    entry = Entry(**(BASE | changes))
    found = leftovers([entry], {"TF-1"} if is_open else set())
    assert (len(found.stops), len(found.ends)) == (stops, ends)


@pytest.mark.parametrize(
    ("entries", "at"),
    [
        ([("condor-complete", True, 5)], 5),
        ([("condor-complete", True, 5), ("condor-rm", True, None), ("condor-complete", True, 7.9)], 7),
        ([("condor-complete", True, 5), ("condor-complete", False, 9)], 5),
    ],
)
def test_the_end_is_when_the_wms_was_told_last(entries: list[tuple[str, bool, float | None]], at: int) -> None:
    log: list[dict[str, Any]] = [
        {"target_phase": phase, "was_successful": success, "source_event_time": when}
        for phase, success, when in entries
    ]
    assert ended_at({"phase_change_log": log}) == at


@pytest.mark.parametrize("log", [None, [], [{}], [{"target_phase": "condor-complete", "was_successful": True}]])
def test_a_log_that_says_nothing_of_it(log: Any) -> None:
    assert ended_at({"phase_change_log": log}) > 1_700_000_000
