"""Real pilots, as processes, on one of the brokers; their tasks are plain processes too."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from broker_places import Place

PATIENCE = 90

SERVERS = {"rabbitmq": "rabbit", "nats": "nats"}
"""Broker type → the fixture of a server that may be restarted."""


@asynccontextmanager
async def pilot(place: Place, directory: Path, script: str, **more: str) -> AsyncIterator[trio.Process]:
    """A pilot with three slots that runs `script` for each event, with `$1` the infile and `$2` the outfile.

    Leaving kills it, unless it has ended. What it says is in `directory/log`.
    """
    own = {
        "TASK_IMAGE": "unused",
        "TASK_ARGS": f"sh -c '{script}' - {{{{INFILE}}}} {{{{OUTFILE}}}}",
        "DATA_DIR_PARENT_PATH_ON_HOST": str(directory),
        "MAX_CONCURRENT_TASKS": "3",
        "TIMEOUT_QUEUE_WAIT_FOR_FIRST_MESSAGE": "20",
        "TIMEOUT_QUEUE_INCOMING": "10",
        "QUEUE_INCOMING": place.queue,
        "QUEUE_OUTGOING": f"{place.queue}-out",
    }
    for direction in ("INCOMING", "OUTGOING"):
        own[f"QUEUE_{direction}_BROKER_TYPE"] = place.broker_type
        own[f"QUEUE_{direction}_BROKER_ADDRESS"] = place.address
        own[f"QUEUE_{direction}_AUTH_TOKEN"] = place.token.reveal()
    environ = {"PATH": os.environ["PATH"], "_EWMS_PILOT_CONTAINER_PLATFORM": "process"}
    environ |= {f"EWMS_PILOT_{name}": value for name, value in (own | more).items()}
    directory.mkdir()  # noqa: ASYNC240  once, on the local disk
    with (directory / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "ewms", "pilot"], env=environ, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()
