import json
from pathlib import Path
from typing import Any

import pytest

from ewms.tms.decisions import (
    Cluster,
    Standing,
    StopOutcome,
    as_intended,
    choose,
    jobs_met,
    must_look_back,
    standing,
    standing_after_404,
    stop_outcome,
)
from ewms.tms.entries import Entry
from ewms.tms.lookup import clusters_in_lines, exactly
from ewms.wms.converter import read
from ewms.wms.models import Taskforce

DATA = Path(__file__).parents[2] / "data" / "tms"


def taskforce(phase: str, cluster_id: int | None) -> Taskforce:
    raw: dict[str, Any] = json.loads((DATA / "start-order.json").read_text())["taskforce"]
    return read(Taskforce, raw | {"phase": phase, "cluster_id": cluster_id}, "taskforce")


@pytest.mark.parametrize(
    ("phase", "theirs", "ours", "expected", "after_404"),
    [
        ("pending-starter", None, 7, Standing.WANTED, Standing.WITHDRAWN),
        ("condor-submit", 7, 7, Standing.CONFIRMED, Standing.CONFIRMED),
        ("pending-stopper", 7, 7, Standing.CONFIRMED, Standing.CONFIRMED),
        ("condor-complete", 7, 7, Standing.CONFIRMED, Standing.CONFIRMED),
        ("condor-submit", 8, 7, Standing.WITHDRAWN, Standing.WITHDRAWN),
        ("pending-starter", 8, 7, Standing.WITHDRAWN, Standing.WITHDRAWN),
        ("condor-rm", None, 7, Standing.WITHDRAWN, Standing.WITHDRAWN),
        ("pending-stopper", None, 7, Standing.WITHDRAWN, Standing.WITHDRAWN),
    ],
)
def test_the_rule_of_the_re_check_and_of_the_404(
    phase: str, theirs: int | None, ours: int, expected: Standing, after_404: Standing
) -> None:
    assert standing(taskforce(phase, theirs), ours) is expected
    assert standing_after_404(taskforce(phase, theirs), ours) is after_404


def test_a_taskforce_that_the_wms_does_not_know_is_withdrawn() -> None:
    assert standing(None, None) is standing(None, 7) is standing_after_404(None, 7) is Standing.WITHDRAWN


def test_before_a_submit_an_order_without_a_cluster_is_wanted_only_while_it_is_pending() -> None:
    assert standing(taskforce("pending-starter", None), None) is Standing.WANTED
    assert standing(taskforce("condor-rm", None), None) is Standing.WITHDRAWN
    assert standing(taskforce("condor-submit", 7), None) is Standing.WITHDRAWN


def test_history_is_read_only_where_it_can_know_more() -> None:
    entry = Entry(taskforce_uuid="TF-1", log_path="", n_workers=1, intended_at=0)
    assert must_look_back(entry, ordered_at=1e9, ledger_created_at=0)
    assert must_look_back(None, ordered_at=1000.0, ledger_created_at=1000.0)  # maybe an earlier tool's
    assert not must_look_back(None, ordered_at=5000.0, ledger_created_at=1000.0)


def test_of_several_clusters_the_confirmed_one_or_else_the_oldest_stays() -> None:
    old, new = Cluster(7, "", 1), Cluster(9, "", 1)
    assert choose([new, old], None) == choose([new, old], 8) == (old, (new,))
    assert choose([old, new], 9) == (new, (old,))
    assert choose([], 9) == (None, ())


def test_a_cluster_that_was_found_is_completed_from_the_intent() -> None:
    entry = Entry(
        taskforce_uuid="TF-1", log_path="/l", n_workers=9, intended_at=1, submit_dict={"universe": "container"}
    )
    only_in_the_log = Cluster(5, "/l", 0)
    assert as_intended(only_in_the_log, None) == only_in_the_log
    assert as_intended(only_in_the_log, entry) == Cluster(5, "/l", 9, {"universe": "container"})
    assert as_intended(Cluster(5, "/l", 4, {"a": 1}), entry) == Cluster(5, "/l", 4, {"a": 1})


@pytest.mark.parametrize(
    ("n_removed", "queued", "expected"),
    [
        (4, [], StopOutcome.REMOVED),
        (0, [7], StopOutcome.REMOVED),
        (0, [], StopOutcome.NOTHING_LEFT),
        (0, [9], StopOutcome.ELSEWHERE),
        (0, [7, 9], StopOutcome.REMOVED),
    ],
)
def test_what_came_of_a_stop(n_removed: int, queued: list[int], expected: StopOutcome) -> None:
    assert stop_outcome(n_removed, 7, queued) is expected


def test_a_removal_needs_both_the_id_and_the_uuid() -> None:
    assert exactly("TF-1", 7) == 'ClusterId == 7 && EWMSTaskforceUUID == "TF-1"'


def test_the_log_names_a_taskforces_cluster() -> None:
    lines = [
        b"035 (012.-01.000) 2026-11-21 20:00:00 Cluster submitted from host: <x>\n",
        b"    EWMSTaskforceUUID=TF-1\n",
        b"...\n",
        b"000 (013.000.000) 2026-11-21 20:00:00 Job submitted from host: <x>\n",
        b'    [ EWMSTaskforceUUID = "TF-1-2" ]\n',
        b"...\n",
        b"008 (014.000.000) 2026-11-21 20:00:00 EWMSTaskforceUUID=TF-1\n",
        b"    EWMSTaskforceUUID=TF-1\n",
        b"...\n",
        b"000 (012.000.000) 2026-11-21 20:00:00 Job submitted from host: <x>\n",
        b"    EWMSTaskforceUUID=TF-1\n",
    ]
    assert clusters_in_lines(lines, "TF-1") == [12]
    assert clusters_in_lines(lines, "TF-1-2") == [13]
    assert clusters_in_lines(lines, "TF") == []


@pytest.mark.parametrize(
    ("n_met", "submit_dict", "jobs"),
    [
        (3, {"max_idle": 200}, 2),
        (3, {"max_materialize": 5}, 2),
        (1, {"max_idle": 200}, 0),  # a job factory that has no job in the queue
        (0, {"max_idle": 200}, 0),  # nothing was met
        (3, {"log": "/scratch/jobs/2026-11-21.tms.jel"}, 3),  # an earlier tool's cluster is no factory
    ],
)
def test_a_factorys_own_ad_is_no_job(n_met: int, submit_dict: dict[str, object], jobs: int) -> None:
    assert jobs_met(n_met, submit_dict) == jobs
