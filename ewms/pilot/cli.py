"""`ewms pilot`: the edge that reads the environment, sets up logging and gives the exit status."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click
import structlog
import trio

from ewms import logs
from ewms.pilot import service
from ewms.pilot.containers import PLATFORMS
from ewms.pilot.errors import ExitStatus
from ewms.pilot.output import let_go
from ewms.pilot.settings import PilotSettings, read, without_effect
from ewms.settings import SettingsError, warn_of_deprecated

log = structlog.stdlib.get_logger(__name__)

_HELP: Final = {"help_option_names": ["-h", "--help"]}


@click.group(invoke_without_command=True, context_settings=_HELP)
@click.pass_context
def pilot(context: click.Context) -> None:
    """Run one pilot: events from a queue, a task container for each.

    All settings come from EWMS_PILOT_… variables of the environment. The pilot ends by itself when no event came for
    EWMS_PILOT_TIMEOUT_QUEUE_INCOMING seconds; SIGTERM stops it in order.

    \b
    Exit status:
      0 every task succeeded           6 the broker refuses us
      1 a task failed                  7 the broker is out of reach
      2 a setting is wrong             8 the data directory cannot be used
      3 the init container failed      9 stopped by a signal
      4 no working container runtime  70 a bug
      5 the image cannot be used      10 there were only parked events
                                      11 the machine is not fit for tasks

    \b
    Example, without a broker server or a container runtime:
      export EWMS_PILOT_TASK_IMAGE=none EWMS_PILOT_TASK_ARGS='cp {{INFILE}} {{OUTFILE}}'
      export EWMS_PILOT_QUEUE_INCOMING=in  EWMS_PILOT_QUEUE_INCOMING_BROKER_TYPE=local
      export EWMS_PILOT_QUEUE_OUTGOING=out EWMS_PILOT_QUEUE_OUTGOING_BROKER_TYPE=local
      export EWMS_PILOT_QUEUE_INCOMING_BROKER_ADDRESS=/tmp/queues
      export EWMS_PILOT_QUEUE_OUTGOING_BROKER_ADDRESS=/tmp/queues
      export _EWMS_PILOT_CONTAINER_PLATFORM=process
      ewms pilot
    """
    if context.invoked_subcommand is not None:
        return
    with _problems_told():
        settings = read(os.environ)
    logs.configure(settings.cl_log.upper(), settings.cl_log_third_party.upper())
    log.info("pilot begins", version=version("ewms-htcondor"), python=platform.python_version())
    warn_of_deprecated(PilotSettings, os.environ)
    for line in without_effect(os.environ):
        log.warning("please note", note=line)
    status = trio.run(service.main, settings)
    let_go(sys.stdout, sys.stderr)
    sys.exit(status)


@pilot.command("try", context_settings=_HELP, short_help="Try a task on this machine, with files as events.")
@click.option("--image", required=True, help="The task's image: a directory, a .sif, docker://NAME, or a Docker name.")
@click.option("--args", help="The task's arguments, split like a shell's; {{INFILE}} and {{OUTFILE}} are replaced.")
@click.option(
    "--event",
    "paths",
    multiple=True,
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A file as one event: JSON where it is called .json, else text or bytes; may be repeated.",
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the task; may be repeated.")
@click.option("--timeout", type=float, metavar="S", help="Kill a task that runs longer.")
@click.option("--infile-ext", metavar="EXT", help="Extension of the infile (.in).")
@click.option("--outfile-ext", metavar="EXT", help="Extension of the outfile (.out).")
@click.option("--init-image", metavar="IMAGE", help="Image of the init container, run once before.")
@click.option("--init-args", help="Its arguments; {{DATA_HUB}} is replaced.")
@click.option(
    "--platform",
    type=click.Choice([*PLATFORMS, "auto"]),
    help="What runs the containers; `process` runs the arguments as a command, without any container.",
)
@click.option("--keep", is_flag=True, help="Keep the directory with all files and the pilot's log.")
def try_(paths: tuple[Path, ...], env: tuple[str, ...], *, keep: bool, **options: Any) -> None:
    """Try a task on this machine: the real pilot, files as events, no broker server.

    Mounts, environment, placeholders and limits are those of production; other EWMS_PILOT_… variables that are set
    count too, except those about queues, chirp, failed tasks, kept files, and when the pilot ends. It says what became
    of each event, what to do about what failed, and what production does differently. Exit status: 0 when every task
    succeeded, 1 when one failed, others as `ewms pilot`.

    \b
    Examples:
      ewms pilot try --image ./my-image --args 'reco.py {{INFILE}} {{OUTFILE}}' --event frame.in
      ewms pilot try --image me/reco:2 --platform docker --event 1.json --event 2.json \\
          --infile-ext .json --outfile-ext .json --args '--in {{INFILE}} --out {{OUTFILE}}' --timeout 600
      ewms pilot try --image none --platform process --args 'cp {{INFILE}} {{OUTFILE}}' --event frame.in
    """
    from ewms.pilot import trial

    with _problems_told():
        status = trial.main(trial.Plan(env=trial.pairs(env), **options), paths, os.environ, keep=keep)
    sys.exit(status)


@contextmanager
def _problems_told() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(ExitStatus.CONFIGURATION)
