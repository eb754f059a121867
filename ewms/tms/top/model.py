"""What `ewms top` shows, as numbers: snapshots of a source, and what follows from the last minute of them (pure)."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from ewms.tms.overview import Overview

WINDOW: Final = 60.0
"""Rates are means of the last so many seconds."""
_LOG_LAG: Final = 300.0
_REPORT_LAG: Final = 900.0
_NEWS: Final = 600.0
"""A restart is told for so many seconds."""


@attrs.frozen
class Calls:
    """Calls to another service, counted since the start."""

    count: float = 0
    failed: float = 0
    seconds: float = 0


@attrs.frozen
class Site:
    """Runs of pilots that ended at a site."""

    name: str
    runs: int
    failures: int


@attrs.frozen(kw_only=True)
class Snapshot:
    """What a source said at one moment. What it does not know (logs know no orders) is empty, or None."""

    at: float
    """By the reader's own clock, in s."""
    title: str
    """Who says it, with its version."""
    started_at: float | None = None
    """When it was started (epoch s): another value is another life, and its counters begin at 0."""
    is_catching_up: bool = False
    """It is still at what happened before: no rate follows from that."""
    overview: Overview = attrs.field(factory=Overview)
    counters: Mapping[str, float] = attrs.field(factory=dict)
    """Counted since the start, by the words that are shown."""
    warnings: Mapping[str, float] = attrs.field(factory=dict)
    """Warnings and errors in its log, by their text, counted since the start."""
    calls: Mapping[str, Calls] = attrs.field(factory=dict)
    sites: tuple[Site, ...] = ()
    suspicious: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    stuck: Mapping[str, float] = attrs.field(factory=dict)
    """Parts that show no life, and for how long (s)."""
    log_lag_bytes: float = 0
    log_lag_seconds: float = 0
    report_lag_seconds: float | None = None
    memory: float | None = None
    """Of its process, in bytes."""
    troubles: tuple[str, ...] = ()
    """What else is wrong, in words."""


@attrs.frozen
class CallRates:
    """Calls to another service in the last minute."""

    per_minute: float
    failed_per_minute: float
    mean_seconds: float | None
    """None: there was none."""


@attrs.frozen
class View:
    """One frame's contents."""

    source: str
    """Where it is read from."""
    snapshot: Snapshot | None
    """The newest one; None: there was none yet."""
    gone_for: float | None = None
    """For how long (s) the source has not answered; the snapshot is as old. None: it answers."""
    why_gone: str = ""
    restarted_ago: float | None = None
    """When (s ago) the source was found to be another process; None: not while it was watched."""
    rates: Mapping[str, float] | None = None
    """Counters, per minute; None: too early to tell."""
    changes: Mapping[str, float] | None = None
    """Workers by status, change per minute."""
    calls: Mapping[str, CallRates] | None = None
    new_warnings: Mapping[str, float] = attrs.field(factory=dict)
    """What the TMS's log warned of in the last minute, per minute."""

    @property
    def alarms(self) -> list[str]:
        """What somebody should see to, in words."""
        found = []
        if self.gone_for is not None:
            found.append(f"no answer for {seconds_text(self.gone_for)}: {self.why_gone}")
        if self.restarted_ago is not None and self.restarted_ago < _NEWS:
            found.append(f"restarted {seconds_text(self.restarted_ago)} ago: counters begin anew")
        if self.snapshot is not None:
            found += _alarms(self.snapshot)
        found += [f"log, {count:.0f}/min: {text}" for text, count in sorted(self.new_warnings.items()) if count >= 0.5]
        return found


def _alarms(now: Snapshot) -> list[str]:
    found = [f"stuck: {name} shows no life for {seconds_text(silence)}" for name, silence in now.stuck.items()]
    if now.log_lag_seconds > _LOG_LAG:
        found.append(f"the job event logs are read {seconds_text(now.log_lag_seconds)} late")
    if now.report_lag_seconds is not None and now.report_lag_seconds > _REPORT_LAG:
        found.append(f"the WMS has not been told for {seconds_text(now.report_lag_seconds)}")
    found += [f"fails much more often than elsewhere: {place}" for place in now.suspicious]
    return [*found, *now.troubles]


def worst_first(sites: Iterable[Site]) -> tuple[Site, ...]:
    """Those with the most failures first, then those with the most runs."""
    return tuple(sorted(sites, key=lambda site: (-site.failures, -site.runs, site.name)))


class Trail:
    """The snapshots of the last minute, and what became of their source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._snapshots: deque[Snapshot] = deque()
        self._gone: tuple[float, str] | None = None
        self._restarted_at: float | None = None

    def add(self, snapshot: Snapshot) -> None:
        """The source answered."""
        before = self._snapshots[-1] if self._snapshots else snapshot
        if before.started_at != snapshot.started_at:
            self._restarted_at = snapshot.at
        if before.started_at != snapshot.started_at or before.is_catching_up:
            self._snapshots.clear()
        self._gone = None
        self._snapshots.append(snapshot)
        while len(self._snapshots) > 2 and self._snapshots[1].at <= snapshot.at - WINDOW:
            self._snapshots.popleft()

    def lost(self, at: float, why: str) -> None:
        """The source did not answer."""
        self._gone = (self._gone[0] if self._gone else at), why

    def view(self, at: float) -> View:
        """What there is to show now."""
        if not self._snapshots:
            since, why = self._gone or (at, "")
            return View(self._source, None, at - since if self._gone else None, why)
        first, last = self._snapshots[0], self._snapshots[-1]
        view = View(
            self._source,
            last,
            gone_for=at - self._gone[0] if self._gone else None,
            why_gone=self._gone[1] if self._gone else "",
            restarted_ago=None if self._restarted_at is None else at - self._restarted_at,
        )
        if self._gone or last.at <= first.at:
            return view
        per_minute = 60 / (last.at - first.at)

        def rates(of: Callable[[Snapshot], Mapping[str, float]]) -> dict[str, float]:
            before, now = of(first), of(last)
            return {name: (now.get(name, 0) - before.get(name, 0)) * per_minute for name in {**before, **now}}

        return attrs.evolve(
            view,
            rates=rates(lambda each: each.counters),
            changes=rates(lambda each: each.overview.workers),
            calls={name: _between(first.calls.get(name, Calls()), now, per_minute) for name, now in last.calls.items()},
            new_warnings=rates(lambda each: each.warnings),
        )


def _between(first: Calls, last: Calls, per_minute: float) -> CallRates:
    count = last.count - first.count
    mean = (last.seconds - first.seconds) / count if count > 0 else None
    return CallRates(count * per_minute, (last.failed - first.failed) * per_minute, mean)


def seconds_text(seconds: float) -> str:
    """A time that has passed, as a person says it: `12 s`, `3 min`, `5 h 02 min`, `4 d 07 h`."""
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24:02d} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
