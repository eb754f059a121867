"""The commands `ewms tms` and `ewms check`: the edge, where the environment is read."""

import os
import sys

import click
import structlog
import trio

from ewms import logs
from ewms.groups import told_as
from ewms.settings import SettingsError, warn_of_deprecated
from ewms.tms.errors import SettingWrong, SetupError
from ewms.tms.settings import Settings, read, without_effect

log = structlog.stdlib.get_logger(__name__)


@click.command()
def tms() -> None:
    """Run the Task Management Service on an access point.

    All settings are environment variables; `ewms check tms` says what is missing.

    \b
    Exit status:
      0   it was told to stop, and did
      1   something that it needs is not there now, or it failed: the next start may go well
      2   a setting is missing or wrong: no restart mends that

    \b
    Examples:
      set -a; . ./tms.env; ewms tms      run with an envfile
      DRYRUN=true ewms tms               print what would be submitted
    """
    settings = _settings_or_exit()
    logs.configure(settings.log_level, settings.log_level_third_party, settings.log_format)
    warn_of_deprecated(Settings, os.environ)
    for text in without_effect(os.environ):
        log.warning("this variable does nothing", note=text)
    from ewms.tms.service import main

    with told_as(SetupError, _end):
        trio.run(main, settings)


@click.command()
@click.argument("service", type=click.Choice(["tms"]), expose_value=False)
def check() -> None:
    """Validate the settings and surroundings of a service without starting it, and say what to do about each fault.

    Nothing is changed: a TMS may be running. The environment is read as `ewms tms` would read it.

    \b
    Exit status:
      0   it can run here (there may be warnings)
      1   something that it needs does not work
      2   a setting is missing or wrong

    \b
    Examples:
      (set -a; . ./tms.env; ewms check tms)          check with an envfile
      EWMS_ADDRESS=https://other ewms check tms      would it work with another WMS?
    """
    from ewms.tms.check import Finding, check_all, check_names, line, summary

    try:
        settings = read(os.environ)
    except SettingsError as error:
        wrong = [Finding("settings", "failed", problem) for problem in error.problems]
        click.echo("\n".join([*map(line, wrong), summary(wrong)]))
        sys.exit(SettingWrong.exit_status)
    logs.configure("CRITICAL", "CRITICAL")
    old = list(check_names(os.environ))
    for finding in old:
        click.echo(line(finding))
    with told_as(KeyboardInterrupt, lambda _: click.Abort()):  # a nursery wraps it
        findings = old + trio.run(check_all, settings, lambda finding: click.echo(line(finding)))
    click.echo(summary(findings))
    sys.exit(1 if any(finding.is_fatal for finding in findings) else 0)


def _settings_or_exit() -> Settings:
    try:
        return read(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(SettingWrong.exit_status)


def _end(reasons: list[SetupError]) -> SystemExit:
    """Say why it cannot run here; the most hopeless reason is the exit status."""
    click.echo(f"Error: {'; '.join(map(str, reasons))}", err=True)
    return SystemExit(max(reason.exit_status for reason in reasons))
