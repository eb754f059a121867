"""The `ewms` command. Each subcommand imports what it needs when it runs: a pilot stays light."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, Final, NamedTuple

import click


class _Command(NamedTuple):
    """Where a subcommand is, which extra has the packages that it needs, and its line in `ewms --help`."""

    module: str
    attribute: str
    extra: str
    summary: str


_COMMANDS: Final = {
    "check": _Command(
        "ewms.tms.cli", "check", "tms", "Validate a service's settings and surroundings without starting it."
    ),
    "demo": _Command(
        "ewms.demo.cli", "demo", "demo", "Run the main job on this machine: pool, broker, WMS, TMS, pilots, events."
    ),
    "log": _Command("ewms.tms.log_cli", "log", "tms", "Read job event logs off-line: taskforces, statuses, errors."),
    "pilot": _Command(
        "ewms.pilot.cli", "pilot", "pilot", "Run one pilot: events from a queue, a task container for each."
    ),
    "tms": _Command("ewms.tms.cli", "tms", "tms", "Run the Task Management Service on an access point."),
    "top": _Command(
        "ewms.tms.top.cli",
        "top",
        "tms",
        "Watch a TMS, or job event logs, on a terminal: taskforces, workers, sites, errors.",
    ),
    "wms-standin": _Command(
        "ewms.testing.cli", "wms_standin", "demo", "Run a stand-in for the WMS, to try the TMS by hand."
    ),
}


class _LazyGroup(click.Group):
    """A group whose subcommands are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        with _packages_told(lambda: cmd_name):
            command: click.Command = getattr(
                importlib.import_module(_COMMANDS[cmd_name].module), _COMMANDS[cmd_name].attribute
            )
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # A subcommand imports more when it runs, so that its help needs less.
        with _packages_told(lambda: ctx.invoked_subcommand):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: listing must not import every subcommand.
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].summary) for name in sorted(_COMMANDS)])


@contextmanager
def _packages_told(subcommand: Callable[[], str | None]) -> Iterator[None]:
    """Say which extra has a package that the subcommand needs and that is not here."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = subcommand() or ""
        if name not in _COMMANDS or (error.name or "ewms").startswith("ewms"):
            raise
        raise click.ClickException(
            f"`ewms {name}` needs the package {error.name!r}, which is not installed here; "
            f"pip install 'ewms-htcondor[{_COMMANDS[name].extra}]'"
        ) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ewms-htcondor", prog_name="ewms")
def main() -> None:
    """EWMS's HTCondor side: taskforces in, clusters of pilots out, one container for every event.

    \b
    Examples:
      ewms demo                     run the main job on this machine
      ewms check tms                would the TMS start here, and what is missing?
      ewms tms                      run the TMS (settings come from the environment)
      ewms top --port 9310          what it does now
      ewms log 2026-11-21.tms.jel   what happened that day
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where the process was started without
            stream.reconfigure(errors="backslashreplace")  # no text of a task or a log is worth a traceback
