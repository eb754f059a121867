"""A view as a frame that fits its terminal."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ewms.tms.eventlog.statuses import JobStatus
from ewms.tms.overview import Overview, Row
from ewms.tms.top.model import CallRates, Site, Snapshot, View, seconds_text

WIDE: Final = 120
"""From so many columns on, UUIDs are shown whole, and sites and errors stand side by side."""
_FEWEST_ROWS: Final = 3
_SHORT_UUID: Final = 20
_COLUMNS: Final = (
    ("run", JobStatus.RUNNING),
    ("idle", JobStatus.IDLE),
    ("held", JobStatus.HELD),
    ("done", JobStatus.COMPLETED),
    ("gone", JobStatus.REMOVED),
)
"""What a taskforce's row shows of its workers; suspended ones are in the first line of the frame only."""
_COLOURS: Final = {JobStatus.RUNNING: "green", JobStatus.HELD: "red", JobStatus.SUSPENDED: "yellow"}


@attrs.frozen
class Frame:
    """What is shown at one moment, `now`."""

    view: View
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Head and foot take what they need, the taskforces what is left."""
        width, height = options.max_width, options.height or console.height
        # Sites, errors and alarms have a share of the lines each.
        some = max(_FEWEST_ROWS, height // 8)
        yield (head := Group(self._title(width), *self._head(some)))
        if (snapshot := self.view.snapshot) is None:
            return
        foot = _foot(snapshot, width, some)
        free = options.update(height=None)
        used = sum(len(console.render_lines(part, free)) for part in (head, foot))
        # Two lines are the table's head and the count of the rest.
        yield _taskforces(snapshot.overview, width, max(_FEWEST_ROWS, height - used - 2))
        yield foot

    def _title(self, width: int) -> RenderableType:
        snapshot = self.view.snapshot
        parts = [snapshot.title if snapshot else "nothing yet", self.view.source]
        if snapshot and snapshot.started_at:
            parts.append(f"up {seconds_text(self.now.timestamp() - snapshot.started_at)}")
        if snapshot and snapshot.memory:
            parts.append(_bytes(snapshot.memory))
        style = "bold" if self.view.gone_for is None else "bold red"
        table = Table.grid(expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(justify="right", no_wrap=True)
        table.add_row(_text("ewms top · " + " · ".join(parts), style), self.now.astimezone(UTC).strftime("%H:%M:%SZ"))
        return table

    def _head(self, most_alarms: int) -> Iterator[RenderableType]:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        if snapshot := self.view.snapshot:
            table.add_row("workers", _workers(snapshot.overview.workers, self.view.changes))
            table.add_row("taskforces", _stages(snapshot.overview))
            table.add_row("per minute", _rates(self.view.rates))
            for name, rates in (self.view.calls or {}).items():
                table.add_row(f"{name} calls", _calls(rates))
            table.add_row("lag", _lag(snapshot))
            if snapshot.excluded:
                table.add_row("avoided", _text(", ".join(snapshot.excluded)))
        alarms = self.view.alarms
        for alarm in alarms[:most_alarms]:
            table.add_row(Text("!", "bold red"), _text(alarm, "red", no_wrap=True))
        if len(alarms) > most_alarms:
            table.add_row("", f"… and {len(alarms) - most_alarms} more")
        yield table


# --- the head ---


def _workers(workers: Mapping[str, int], changes: Mapping[str, float] | None) -> RenderableType:
    parts = []
    for status in JobStatus:
        if count := workers.get(status, 0):
            part = Text(f"{status} {count:,}", _COLOURS.get(status, ""))
            if changes and (change := round(changes.get(status, 0))):
                part.append(f" ({change:+,}/min)", "dim")
            parts.append(part)
    return Columns(parts, padding=(0, 2)) if parts else "none"


def _stages(whole: Overview) -> Text:
    line = Text(", ".join(f"{count:,} {_clean(stage)}" for stage, count in sorted(whole.stages.items())) or "none")
    if whole.in_trouble:
        line.append(f"; {whole.in_trouble:,} in trouble", "red")
    return line


def _rates(rates: Mapping[str, float] | None) -> Text:
    if rates is None:
        return Text("not known yet", "dim")
    return Text(", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items() if rate >= 0.5) or "nothing", "")


def _calls(rates: CallRates) -> Text:
    line = Text(f"{rates.per_minute:,.0f}/min")
    if rates.mean_seconds is not None:
        line.append(f", {rates.mean_seconds:.3f} s each")
    if rates.failed_per_minute >= 0.5:
        line.append(f", {rates.failed_per_minute:,.0f}/min failed", "red")
    return line


def _lag(snapshot: Snapshot) -> Text:
    parts = [f"log {_bytes(snapshot.log_lag_bytes)}"]
    if snapshot.log_lag_seconds >= 1:
        parts[0] += f", {seconds_text(snapshot.log_lag_seconds)}"
    if snapshot.is_catching_up:
        parts[0] += " still to read"
    if snapshot.report_lag_seconds is not None:
        parts.append(f"report {seconds_text(snapshot.report_lag_seconds)}")
    return Text("; ".join(parts))


# --- the taskforces ---


def _taskforces(whole: Overview, width: int, lines: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold reverse")
    table.add_column("taskforce", no_wrap=True, width=None if width >= WIDE else _SHORT_UUID)
    if width >= WIDE:
        table.add_column("stage", no_wrap=True)
        table.add_column("cluster", justify="right", no_wrap=True)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("task", justify="right", no_wrap=True)
    table.add_column("err", justify="right", no_wrap=True)
    table.add_column("trouble", no_wrap=True, overflow="ellipsis", ratio=1)
    shown = whole.rows[:lines]
    for row in shown:
        table.add_row(*_cells(row, width), style="red" if row.is_in_trouble else "dim" if row.has_ended else "")
    return Group(table, _rest(whole, shown)) if len(shown) < whole.taskforces else table


def _cells(row: Row, width: int) -> Iterator[RenderableType]:
    yield _text(row.uuid if width >= WIDE else _short(row.uuid))
    if width >= WIDE:
        yield _text(row.stage)
        yield "" if row.cluster_id is None else str(row.cluster_id)
    for _, status in _COLUMNS:
        yield _count(row.workers.get(status, 0))
    yield _count(row.tasking)
    yield _count(sum(row.errors.values()))
    yield _text(row.trouble or next(iter(row.errors), ""))


def _rest(whole: Overview, shown: Sequence[Row]) -> Text:
    rest, bad = whole.taskforces - len(shown), whole.in_trouble - sum(row.is_in_trouble for row in shown)
    return Text(f"… and {rest:,} more" + (f", {bad:,} of them in trouble" if bad else ""), "dim")


# --- the foot ---


def _foot(snapshot: Snapshot, width: int, lines: int) -> RenderableType:
    sites, errors = _sites(snapshot, lines), _errors(snapshot.overview, lines)
    if width < WIDE:
        return Group(*(part for part in (sites, errors) if part is not None))
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(ratio=2)
    table.add_column(ratio=3)
    table.add_row(sites or "", errors or "")
    return table


def _sites(snapshot: Snapshot, lines: int) -> Table | None:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold reverse")
    table.add_column("site", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("runs ended", justify="right", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    for site in snapshot.sites[:lines]:
        table.add_row(_text(site.name), _count(site.runs), _failed(site), style=_style(site, snapshot))
    return table if snapshot.sites else None


def _failed(site: Site) -> str:
    return f"{site.failures:,} ({site.failures / max(1, site.runs):.0%})"


def _style(site: Site, snapshot: Snapshot) -> str:
    return "red" if f"site {site.name}" in snapshot.suspicious else ""


def _errors(whole: Overview, lines: int) -> Table | None:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold reverse")
    table.add_column("workers", justify="right", no_wrap=True)
    table.add_column("task error", no_wrap=True, overflow="ellipsis", ratio=1)
    for text, count in [*whole.errors.items()][:lines]:
        table.add_row(_count(count), _text(text))
    return table if whole.errors else None


# --- words ---


def _text(text: str, style: str = "", *, no_wrap: bool | None = None) -> Text:
    """What comes from others, as text and nothing else: no markup, no terminal's control sequence."""
    return Text(_clean(text), style, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else None)


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _short(uuid: str) -> str:
    """Begin and end of a long name: taskforces of one workflow begin alike."""
    side = (_SHORT_UUID - 1) // 2
    return uuid if len(uuid) <= _SHORT_UUID else f"{uuid[:side]}…{uuid[-side:]}"


def _count(number: int) -> str:
    """At most five characters."""
    if number >= 10_000_000:
        return f"{number // 1_000_000}M"
    if number >= 100_000:
        return f"{number // 1000}k"
    return str(number) if number else "·"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
