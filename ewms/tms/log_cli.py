"""`ewms log`: read job event logs off-line, or follow them, and show what they say of each taskforce."""

import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import trio

from ewms.tms.board import TaskforceReport
from ewms.tms.day_logs import DayLogs, LogUnreadable, is_archive, pieces
from ewms.tms.eventlog.story import Story
from ewms.tms.log_sites import HOSTS_HEAD, SITES_HEAD, report_of

_LONG_READ: Final = 64 << 20  # bytes from which on a progress bar is worth it
_FOLLOW_POLL: Final = 1.0  # s


def _summary(logs: DayLogs) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "taskforces": {
            report.uuid: {
                "cluster_id": report.cluster_id,
                "compound_statuses": report.compound_statuses,
                "top_task_errors": report.top_task_errors,
                "complete": report.completed_at is not None,
            }
            for report in logs.reports()
        },
        "events": logs.events,
        "damaged": logs.damaged,
    }


@click.command("log")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--why", metavar="TF-…", help="Tell the story of one taskforce: its UUID, or cluster:ID.")
@click.option("--sites", is_flag=True, help="Show where pilots fail: runs, failures and quick deaths by site and host.")
@click.option("--follow", is_flag=True, help="Go on reading, and show the table anew when it changed; end with Ctrl-C.")
def log(files: tuple[Path, ...], *, as_json: bool, why: str | None, sites: bool, follow: bool) -> None:
    """Read job event logs (also gzip-compressed ones): taskforces, statuses, errors.

    \b
    Examples:
      ewms log 2026-11-21.tms.jel
      ewms log --json *.tms.jel | jq '.taskforces | length'
      ewms log --why TF-6b021623-cfa0c83f 2026-11-21.tms.jel
      ewms log --sites *.tms.jel *.tms.jel.gz
      ewms log --follow 2026-11-21.tms.jel
    """
    if follow and (as_json or why or sites or any(map(is_archive, files))):
        raise click.UsageError("--follow shows the table of logs that still grow: without --json, --why, --sites, .gz")
    if sites and why:
        raise click.UsageError("--sites is about places, --why about one taskforce: use one of them")
    if why and as_json:
        raise click.UsageError("--why tells a story, which is for people: use it without --json")
    logs = DayLogs(files)
    if follow:
        _follow_until_interrupted(logs)
        return
    faults = _read_all(logs)
    for fault in faults:
        click.echo(f"cannot read: {fault}", err=True)
    _tell_strangers(logs, {fault.path for fault in faults})
    with _writing():
        if why is not None:
            click.echo(_why(logs, why))
        elif sites:
            _show_sites(logs, as_json=as_json)
        elif as_json:
            click.echo(json.dumps(_summary(logs), indent=2))
        else:
            _show(logs)
    if faults:
        sys.exit(1)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # a reader that has seen enough: Click ends without a word
        # What is left in the buffer is not to be told once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise click.ClickException(f"cannot write: {error.strerror}") from error


def _read_all(logs: DayLogs) -> list[LogUnreadable]:
    with _progress(logs) as tell:
        return logs.read_all(tell)


@contextmanager
def _progress(logs: DayLogs) -> Iterator[Callable[[int], object]]:
    """A bar, to be told of the bytes read, where that takes a while and somebody may look."""
    total = sum(path.stat().st_size for path in logs.tallies)
    with click.progressbar(
        length=total, label="reading", file=sys.stderr, hidden=total < _LONG_READ or not sys.stderr.isatty()
    ) as bar:
        yield bar.update


def _tell_strangers(logs: DayLogs, unread: Collection[Path]) -> None:
    for path, tally in logs.tallies.items():
        if not tally.events and path not in unread and path.stat().st_size:
            click.echo(f"{path}: no job's event is in it; is it a job event log?", err=True)


def _follow_until_interrupted(logs: DayLogs) -> None:
    try:
        trio.run(_follow, logs)
    except KeyboardInterrupt:
        return
    except LogUnreadable as fault:
        raise click.ClickException(f"cannot read: {fault}") from fault


async def _follow(logs: DayLogs) -> NoReturn:
    with _progress(logs) as tell:
        changed = await _read_on(logs, tell)
    while True:
        if changed:
            _show(logs)
        await trio.sleep(_FOLLOW_POLL)
        changed = await _read_on(logs)


async def _read_on(logs: DayLogs, tell: Callable[[int], object] = lambda _: None) -> bool:
    """Read what is new; whether there was any."""
    changed = False
    for path in logs.tallies:
        while size := await trio.to_thread.run_sync(logs.read_on, path):
            changed = True
            tell(size)
    return changed


# --- for people ---


def _show(logs: DayLogs) -> None:
    reports = logs.reports()
    _print_table(("taskforce", "cluster", "workers", "ended", "errors"), [_row(report) for report in reports])
    click.echo(f"{len(reports)} taskforces, {logs.events} events, {logs.damaged} damaged")


def _show_sites(logs: DayLogs, *, as_json: bool) -> None:
    report = report_of(logs.sites)
    if as_json:
        click.echo(json.dumps(report.summary(), indent=2))
        return
    if not report.sites:
        click.echo("no run of a worker has ended")
        return
    _print_table(SITES_HEAD, report.site_rows())
    if hosts := report.host_rows():
        _print_table(HOSTS_HEAD, hosts)
    for verdict in report.verdicts():
        click.echo(verdict)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        for row in (head, *rows):
            click.echo("  ".join(cell.replace("\n", ", ") for cell in row))
    else:
        table = Table(show_lines=True)
        for index, name in enumerate(head):
            # The first one is what people copy; of the others nothing is cut off, such as the name of a setting.
            table.add_column(name, no_wrap=index == 0, overflow="fold")
        for row in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        Console().print(table)


def _row(report: TaskforceReport) -> tuple[str, ...]:
    workers = [
        f"{n} {job}" + ("" if pilot == "null" else f" / {pilot}")
        for job, pilots in sorted(report.compound_statuses.items())
        for pilot, n in sorted(pilots.items())
    ]
    if report.materialization_failure:
        workers.append(f"no further workers: {report.materialization_failure}")
    errors = [f"{n} × {text}" for text, n in report.top_task_errors.items()]
    ended = "" if report.completed_at is None else _time(report.completed_at)
    return report.uuid, str(report.cluster_id), "\n".join(workers), ended, "\n".join(errors)


def _why(logs: DayLogs, key: str) -> str:
    report = next((each for each in logs.reports() if key in (each.uuid, f"cluster:{each.cluster_id}")), None)
    if report is None:
        raise click.ClickException(
            f"no taskforce {key} in {', '.join(map(str, logs.tallies))}"
            " (one that never had a cluster is in no job event log; why, stands in the TMS's own log, and at the WMS)"
        )
    lines = [f"{report.uuid}, cluster {report.cluster_id}"]
    for path, tally in logs.tallies.items():
        if report.cluster_id not in tally.clusters:
            continue
        story = Story(report.cluster_id, tally.near)
        with suppress(LogUnreadable):  # which was said when all was read
            for data in pieces(path):
                story.feed(data)
        lines.append(f"in {path}:")
        for chapter in story.chapters.values():
            jobs = "" if chapter.jobs == {-1} else f" ({_jobs(len(chapter.jobs))})"
            until = "" if chapter.first == chapter.last else f" … {_time(chapter.last)}"
            reason = f": {chapter.reason}" if chapter.reason else ""
            lines.append(f"  {_time(chapter.first)}{until}  {chapter.count} × {chapter.what}{jobs}{reason}")
        if story.last_errors:
            lines.append("  last errors:")
            lines += [f"    {_time(error.at)}  worker {error.proc}: {error.text}" for error in story.last_errors]
    lines.append("now:")
    lines += [f"  {line}" for cell in (_row(report)[2], _row(report)[4]) for line in cell.splitlines()]
    lines.append("  the cluster has ended" if report.completed_at is not None else "  the cluster lives")
    return "\n".join(lines)


def _jobs(n: int) -> str:
    return "1 job" if n == 1 else f"{n} jobs"


def _time(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
