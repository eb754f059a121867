"""What raw answers tell, however broken the rest of them is."""

from typing import Any

import pytest

from ewms.wms.errors import WMSMalformed
from ewms.wms.raw import completion_time, count_failures, failed_uuids, is_completed, misfit, read_page


def entry(target: str, succeeded: bool, when: float | None = None) -> dict[str, Any]:
    return {"target_phase": target, "was_successful": succeeded, "source_event_time": when}


def test_failures_are_counted_by_target() -> None:
    log = [entry("condor-submit", False), entry("condor-submit", True), entry("condor-rm", False), "?", None]
    taskforce = {"phase_change_log": log, "n_workers": "broken elsewhere"}
    assert count_failures(taskforce, "condor-submit") == 1
    assert count_failures(taskforce, "condor-rm") == 1


@pytest.mark.parametrize("taskforce", [None, [], {}, {"phase_change_log": None}, {"phase_change_log": 3}])
def test_without_a_log_nothing_has_failed_or_completed(taskforce: Any) -> None:
    assert count_failures(taskforce, "condor-submit") == 0
    assert not is_completed(taskforce, 5)


def test_completed() -> None:
    assert is_completed({"phase": "condor-complete"}, 5)
    assert is_completed({"phase": "condor-rm", "phase_change_log": [entry("condor-complete", True, 5)]}, 5)
    assert not is_completed({"phase": "condor-rm", "phase_change_log": [entry("condor-complete", True, 4)]}, 5)
    assert not is_completed({"phase": "condor-rm", "phase_change_log": [entry("condor-rm", True, 5)]}, 5)


@pytest.mark.parametrize(
    ("when", "at"),
    [(7, 7.0), (7.5, 7.5), ("7", None), (True, None), (1e999, None), (10**400, None), (-1, None), ([], None)],
)
def test_when_the_cluster_ended(when: Any, at: float | None) -> None:
    assert completion_time({"phase_change_log": [entry("condor-complete", True, when), "?"]}) == at


@pytest.mark.parametrize(
    ("taskforce", "wrong"),
    [
        ({"taskforce_uuid": "TF-1", "cluster_id": 7, "n_workers": None}, None),
        ({"taskforce_uuid": "TF-1"}, None),
        ({"cluster_id": 7}, "taskforce_uuid"),
        ({"taskforce_uuid": None}, "taskforce_uuid"),
        ({"taskforce_uuid": ["TF-1"]}, "taskforce_uuid"),
        ({"taskforce_uuid": "TF-1", "cluster_id": [7]}, "cluster_id"),
        ({"taskforce_uuid": "TF-1", "cluster_id": "7"}, "cluster_id"),
        ({"taskforce_uuid": "TF-1", "n_workers": True}, "n_workers"),
        ({"taskforce_uuid": "TF-1", "phase": 3}, None),  # not asked for
    ],
)
def test_a_listed_taskforce_that_makes_no_sense(taskforce: dict[str, Any], wrong: str | None) -> None:
    told = misfit(taskforce, ["taskforce_uuid", "cluster_id", "n_workers"])
    assert (told or "").partition(":")[0] == (wrong or "")


def test_results_of_a_batch() -> None:
    results = [{"uuid": "A", "status": "updated"}, {"uuid": "B", "status": "failed", "error": "?"}]
    assert failed_uuids({"results": results}) == {"B"}
    assert failed_uuids({}) == frozenset()
    with pytest.raises(WMSMalformed):
        failed_uuids({"results": [{}]})
    with pytest.raises(WMSMalformed, match="status batch"):
        failed_uuids({"results": [{"uuid": 7, "status": "failed"}]})


@pytest.mark.parametrize(
    "page", [None, {}, {"taskforces": {}}, {"taskforces": [1]}, {"taskforces": [], "next_after": 1}]
)
def test_a_malformed_page(page: Any) -> None:
    with pytest.raises(WMSMalformed):
        read_page(page)
