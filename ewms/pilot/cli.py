"""`ewms pilot`: the edge that reads the environment, sets up logging and gives the exit status."""

import os
import sys

import click
import trio

from ewms import logs
from ewms.pilot import service
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import read
from ewms.settings import SettingsError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def pilot() -> None:
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
      5 the image cannot be used

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
    try:
        settings = read(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(ExitStatus.CONFIGURATION)
    logs.configure(settings.cl_log.upper(), settings.cl_log_third_party.upper())
    sys.exit(trio.run(service.main, settings))
