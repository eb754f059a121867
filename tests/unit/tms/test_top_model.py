"""Rates, restarts and absences, from snapshots alone."""

from typing import Any

import pytest

from ewms.tms.overview import Overview
from ewms.tms.top.model import CallRates, Calls, Site, Snapshot, Trail, View, seconds_text, worst_first


def snapshot(at: float, count: float = 0, **fields: Any) -> Snapshot:
    return Snapshot(
        at=at,
        title="TMS 1",
        **{
            "started_at": 5.0,
            "counters": {"submitted": count},
            "calls": {"WMS": Calls(2 * count, count, count)},
            **fields,
        },
    )


def test_one_snapshot_has_no_rates() -> None:
    trail = Trail("here")
    trail.add(snapshot(10))
    view = trail.view(11)
    assert (view.rates, view.changes, view.calls, view.alarms) == (None, None, None, [])


def test_rates_are_means_of_the_last_minute() -> None:
    trail = Trail("here")
    for at in range(0, 200, 2):
        trail.add(snapshot(at, count=10 * at if at > 100 else 1000))
    view = trail.view(199)
    assert view.rates == {"submitted": 600}
    assert view.calls == {"WMS": CallRates(1200, 600, 0.5)}


def test_calls_without_any_in_the_last_minute_have_no_mean() -> None:
    trail = Trail("here")
    trail.add(snapshot(0, 5))
    trail.add(snapshot(60, 5))
    assert trail.view(60).calls == {"WMS": CallRates(0, 0, None)}


def test_workers_may_become_fewer() -> None:
    trail = Trail("here")
    trail.add(snapshot(0, overview=Overview(workers={"RUNNING": 100, "IDLE": 5})))
    trail.add(snapshot(30, overview=Overview(workers={"RUNNING": 40, "HELD": 1})))
    assert trail.view(30).changes == {"RUNNING": -120, "IDLE": -10, "HELD": 2}


def test_a_restart_is_told_and_counters_begin_anew() -> None:
    trail = Trail("here")
    trail.add(snapshot(0, 500))
    trail.add(snapshot(2, 500))
    trail.add(snapshot(60, 1, started_at=70.0))
    assert trail.view(62).alarms == ["restarted 2 s ago: counters begin anew"]
    assert trail.view(62).rates is None
    trail.add(snapshot(70, 2, started_at=70.0))
    assert trail.view(70).rates == {"submitted": 6}
    assert trail.view(60 + 601).alarms == []


def test_while_it_is_gone_the_last_news_stay_and_it_is_said_for_how_long() -> None:
    trail = Trail("here")
    assert trail.view(0) == View("here", None)
    trail.lost(0, "connection refused")
    trail.lost(7, "no answer")
    assert trail.view(9).snapshot is None
    assert trail.view(9).alarms == ["no answer for 9 s: no answer"]
    trail.add(snapshot(10, 3))
    trail.add(snapshot(12, 3))
    assert trail.view(12).alarms == []
    trail.lost(14, "connection refused")
    view = trail.view(134)
    assert view.snapshot == snapshot(12, 3)
    assert (view.gone_for, view.rates) == (120, None)
    assert view.alarms == ["no answer for 2 min: connection refused"]


def test_what_was_read_to_catch_up_is_no_rate() -> None:
    trail = Trail("logs")
    trail.add(snapshot(0, 10, is_catching_up=True))
    trail.add(snapshot(1, 100_000, is_catching_up=True))
    trail.add(snapshot(2, 200_000))
    assert trail.view(2).rates is None
    trail.add(snapshot(62, 200_060))
    assert trail.view(62).rates == {"submitted": 60}


def test_alarms_in_words() -> None:
    trail = Trail("here")
    trail.add(snapshot(0))
    now = snapshot(
        60,
        stuck={"watch": 950.0},
        log_lag_seconds=400,
        report_lag_seconds=4000,
        suspicious=("site HOLE",),
        troubles=("the schedd's history cannot be asked",),
        warnings={"HTCondor does not answer, trying again": 3},
    )
    trail.add(now)
    assert trail.view(60).alarms == [
        "stuck: watch shows no life for 15 min",
        "the job event logs are read 6 min late",
        "the WMS has not been told for 1 h 06 min",
        "fails much more often than elsewhere: site HOLE",
        "the schedd's history cannot be asked",
        "log, 3/min: HTCondor does not answer, trying again",
    ]
    trail.add(snapshot(121, warnings=now.warnings))
    assert trail.view(121).alarms == [], "an old warning is no news"


def test_sites_where_most_fails_come_first() -> None:
    sites = [Site("A", 5, 0), Site("B", 50, 0), Site("C", 9, 3)]
    assert [site.name for site in worst_first(sites)] == ["C", "B", "A"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h 00 min"), (86400 * 4 + 7 * 3600, "4 d 07 h")],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
