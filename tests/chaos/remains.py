"""What is left of a run: events in queues, processes, mounts, files; looked at from outside."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from ewms.contract import ENVFILE_NAME
from ewms.pilot import events
from ewms.testing import localqueue, outside
from tests.chaos.invariants import Output, judge_file
from tests.chaos.places import Place
from tests.chaos.system import System

_MAY_HOLD: Final = frozenset({ENVFILE_NAME, "wms.db", "wms.db-journal", "wms.env", "wms.header", "broker.token"})
"""Files that are made to hold secrets."""
_LARGEST: Final = 64 << 20
_COLLECT_S: Final = 120
_TRACEBACK: Final = b"Traceback (most recent call last)"


async def take_all(place: Place, queue: str, count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Take all of a queue, data and headers; RabbitMQ's `count` messages by oms-mqclient in a process of its own."""
    if place.broker is None:
        drained = await localqueue.drain(Path(place.ground.broker_address), queue)
        return [(str(event.data), {events.EVENT_ID: event.event_id, **event.headers}) for event in drained]
    if not count:
        return []
    program = [sys.executable, "-m", "ewms.testing.mqclient_program", "get", queue, place.broker.address, str(count)]
    with trio.fail_after(_COLLECT_S):
        done = await trio.run_process(
            [*program, "--headers"],
            env={"PATH": os.defpath, "QUEUE_TOKEN": place.broker.token.reveal()},
            capture_stdout=True,
            stderr=subprocess.DEVNULL,
        )
    taken = [json.loads(line) for line in done.stdout.splitlines()]
    return [(str(message["data"]), message["headers"] or {}) for message in taken]


async def take_outputs(place: Place, queue: str, count: int) -> list[Output]:
    """All of an outgoing queue."""
    return [Output(data, str(headers.get(events.EVENT_ID))) for data, headers in await take_all(place, queue, count)]


def processes(system: System) -> list[str]:
    """Tasks and pilots of this run, and the pilots' helpers, as text."""
    found = {each.pid: each for each in (*outside.marked(system.marker), *outside.launchers())}
    ours = os.getpid()
    return [str(each) for each in found.values() if each.pid != ours]


def mounts(place: Place) -> list[str]:
    """Where something is mounted on the ground's machine."""
    return [line.split(" ")[1] for line in place.mounts.read_text().splitlines()]


def sandboxes(place: Place) -> list[str]:
    """The workers' directories."""
    return sorted(path.name for path in place.sandboxes.glob("dir_*"))


def files_problems(roots: Sequence[Path], secrets: Mapping[str, bytes]) -> list[str]:
    """Secrets in files where they do not belong."""
    problems = []
    for path in _files(roots):
        try:
            status = path.stat()
            content = path.read_bytes() if status.st_size <= _LARGEST else b""
        except OSError:
            continue  # it went meanwhile
        may_hold = path.name in _MAY_HOLD
        problems += judge_file(str(path), status.st_mode, content, secrets, may_hold=may_hold)
    return problems


def tracebacks(files: Sequence[Path]) -> list[str]:
    """A mistake of ours ends in a traceback, wherever it happens."""
    problems = []
    for path in files:
        _, found, after = path.read_bytes().partition(_TRACEBACK)
        if found:
            problems.append(f"a traceback in {path}:{after[-0:1500].decode(errors='replace')}")
    return problems


def keep_job_dir(place: Place, target: Path) -> None:
    """Copy the job directory, with the files' modes: it may be gone with its file system."""
    with suppress(shutil.Error):  # of what is no file
        shutil.copytree(place.seen(place.ground.job_dir), target, symlinks=True)


def _files(roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink():
                    yield path
