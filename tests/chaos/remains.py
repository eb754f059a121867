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

from ewms.contract import ENVFILE_NAME, TASK_DATA_DIR
from ewms.pilot import events
from ewms.testing import localqueue, outside
from tests.apart import is_apart
from tests.chaos.invariants import Output, judge_file
from tests.chaos.places import Place

_MAY_HOLD: Final = frozenset({ENVFILE_NAME, "wms.db", "wms.db-journal", "wms.env", "wms.header", "broker.token"})
"""Files that are made to hold secrets."""
_OURS: Final = (
    b"ewms.tms.condor.helper",
    b"ewms/testing/schedd/helper.py",
    b"/shifted.py\0",  # what the TMS runs in here
    b"-m\0ewms\0",
    b"containers/launcher.py",
    b"/ewms-pilot-data/",
)
"""In the command lines of what belongs to a run."""
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


def processes(marker: str) -> list[str]:
    """Of this run, as text: TMSs and their helpers, pilots and theirs, tasks, and containers that wait for one."""
    found = list(outside.processes())
    # Apart all are of this run, also those that lost their parents.
    ours = {each.pid for each in found} if is_apart() else outside.descendants_of_us()
    marked = {each.pid for each in outside.marked(marker)}
    return [str(each) for each in found if each.pid in marked or (each.pid in ours and _is_of_a_run(each))]


def _is_of_a_run(process: outside.Process) -> bool:
    return any(words in process.command_line for words in _OURS) or _is_in_container(process.pid)


def _is_in_container(pid: int) -> bool:
    """Whether it is in a task's container: one that waits for its task is told nothing of it yet."""
    try:
        return has_task_io(Path(f"/proc/{pid}/mountinfo").read_text(errors="replace"))
    except OSError:
        return False  # it went meanwhile, or it is somebody else's


def has_task_io(mountinfo: str) -> bool:
    """Whether somebody whose mounts are these is in a task's container."""
    points = (line.split(" ")[4] for line in mountinfo.splitlines() if line.count(" ") > 4)
    return any(point.startswith(f"{TASK_DATA_DIR}/") for point in points)


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
