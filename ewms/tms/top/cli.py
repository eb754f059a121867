"""`ewms top`: the terminal, and the loop that keeps a frame on it."""

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import click
import trio
from rich.console import Console
from rich.live import Live

from ewms.groups import told_as
from ewms.tms.day_logs import DayLogs
from ewms.tms.top.model import Trail
from ewms.tms.top.picture import svg
from ewms.tms.top.render import Frame
from ewms.tms.top.sources import LogFiles, Source, SourceGone, TMSPages

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""What ends it; its terminal is given back as it was."""


@click.command("top")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    envvar="TMS_METRICS_PORT",
    show_envvar=True,
    help="Where a TMS on this machine serves its metrics.",
)
@click.option("--interval", default=2.0, show_default=True, type=click.FloatRange(0.1), help="s between two frames.")
@click.option("--once", is_flag=True, help="Print one frame and exit (also where the output is no terminal).")
@click.option("--svg", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Write one frame as a picture.")
def top(files: tuple[Path, ...], *, port: int | None, interval: float, once: bool, picture: Path | None) -> None:
    """Watch taskforces, workers, sites and errors on a terminal, the ones in trouble first; Ctrl-C ends it.

    It looks at a running TMS (through TMS_METRICS_PORT), or at job event logs, with no TMS at all. What a TMS cannot
    tell while it is away stays on the screen, and it is said for how long; a restart is noticed.

    \b
    Examples:
      ewms top --port 9310                      the TMS whose TMS_METRICS_PORT is 9310
      (set -a; . ./tms.env; ewms top)           the same, from its envfile
      ssh -L 9310:127.0.0.1:9310 AP sleep 1d &  … of another machine
      ewms top /scratch/ewms/jobs/*.tms.jel     day logs, while they grow
      ewms top --once 2026-11-21.tms.jel.gz     one frame, for a script
      ewms top --port 9310 --svg now.svg        one frame as a picture
    """
    once = once or picture is not None or not sys.stdout.isatty()
    source = _source(files, port, whole=once)
    if not once:
        trio.run(_watch, source, interval)
        return
    with told_as(SourceGone, lambda errors: click.ClickException(f"{source.name}: {errors[0]}")):
        frame = trio.run(_one, source)
    console = Console()
    if picture is None:
        console.print(frame)
    else:
        picture.write_text(svg(frame, console.width, console.height))


def _source(files: tuple[Path, ...], port: int | None, *, whole: bool) -> Source:
    if files:
        return LogFiles(DayLogs(files), whole=whole)
    if port is None:
        raise click.UsageError("name day logs, or a TMS with --port PORT (its TMS_METRICS_PORT)")
    return TMSPages(port)


async def _one(source: Source) -> Frame:
    trail = Trail(source.name)
    trail.add(await source.read())
    return _frame(trail)


async def _watch(source: Source, interval: float) -> None:
    """Frame after frame until a signal comes."""
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signals, nursery.cancel_scope)
            await _show_for_ever(source, interval, live)


async def _show_for_ever(source: Source, interval: float, live: Live) -> NoReturn:
    trail = Trail(source.name)
    while True:
        pause = interval
        try:
            snapshot = await source.read()
        except SourceGone as gone:
            trail.lost(trio.current_time(), str(gone))
        else:
            trail.add(snapshot)
            pause = 0 if snapshot.is_catching_up else interval
        live.update(_frame(trail), refresh=True)
        await trio.sleep(pause)


async def _cancel_on_signals(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async for _ in signals:
            scope.cancel()


def _frame(trail: Trail) -> Frame:
    return Frame(trail.view(trio.current_time()), datetime.now(UTC))
