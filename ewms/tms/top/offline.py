"""Day logs, as far as they are read → a snapshot (pure)."""

from typing import Final

from ewms.tms.day_logs import DayLogs
from ewms.tms.log_sites import report_of
from ewms.tms.overview import overview, row_of
from ewms.tms.top.model import Site, Snapshot, worst_first

_EVENTS: Final = "events read"


def snapshot(logs: DayLogs, *, at: float, behind: int, more: bool) -> Snapshot:
    """What the logs say; `behind` bytes of them are not read yet, and `more` says whether that goes on at once."""
    places = report_of(logs.sites)
    return Snapshot(
        at=at,
        title="1 day log" if len(logs.tallies) == 1 else f"{len(logs.tallies)} day logs",
        is_catching_up=more,
        overview=overview(
            row_of("living" if report.completed_at is None else "ended", report) for report in logs.reports()
        ),
        counters={_EVENTS: logs.events},
        sites=worst_first(Site(name, count.runs, count.failures) for name, count in places.sites.items()),
        suspicious=tuple(suspect.place for suspect in places.suspects),
        log_lag_bytes=behind,
        troubles=_troubles(logs),
    )


def is_true_still(last: Snapshot, logs: DayLogs, *, behind: int) -> bool:
    """Whether nothing was read since."""
    known = last.counters[_EVENTS], last.troubles, last.log_lag_bytes
    return known == (logs.events, _troubles(logs), behind)


def _troubles(logs: DayLogs) -> tuple[str, ...]:
    return (f"{logs.damaged:,} damaged events",) if logs.damaged else ()
