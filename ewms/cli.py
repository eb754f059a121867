"""The `ewms` command. Each subcommand imports what it needs when it runs: a pilot stays light."""

import importlib
from typing import Final

import click

_COMMANDS: Final = {
    "check": (
        "ewms.tms.cli",
        "check",
        "Validate a service's settings and surroundings without starting it.",
    ),
    "demo": (
        "ewms.demo.cli",
        "demo",
        "Run the main job on this machine: pool, broker, WMS, TMS, pilots, events.",
    ),
    "log": ("ewms.tms.log_cli", "log", "Read job event logs off-line: taskforces, statuses, errors."),
    "pilot": (
        "ewms.pilot.cli",
        "pilot",
        "Run one pilot: events from a queue, a task container for each.",
    ),
    "tms": ("ewms.tms.cli", "tms", "Run the Task Management Service on an access point."),
    "top": (
        "ewms.tms.top.cli",
        "top",
        "Watch a TMS, or job event logs, on a terminal: taskforces, workers, sites, errors.",
    ),
    "wms-standin": (
        "ewms.testing.cli",
        "wms_standin",
        "Run a stand-in for the WMS, to try the TMS by hand.",
    ),
}
"""Subcommand → (module, attribute, one line for `ewms --help`)."""


class _LazyGroup(click.Group):
    """A group whose subcommands are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("ewms"):
                raise
            raise click.ClickException(
                f"`ewms {cmd_name}` needs the package {error.name!r}, which is not installed here; "
                f"install the extra that has it, e.g. pip install 'ewms-htcondor[demo]'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: listing must not import every subcommand.
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][2]) for name in sorted(_COMMANDS)])


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
