"""What a run could leave running is seen, whatever tells it from others; and whose pilots a fault hits is noted."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.remains import has_task_io, processes
from tests.chaos.system import Job, System

MOUNT = (
    "502 113 0:90 /var/lib/condor/execute/dir_7/scratch/ewms-pilot-data/data-hub /ewms-pilot-data/data-hub "
    "rw,nosuid,nodev,relatime master:141 - overlay overlay rw"
)
"""Captured: of a shell that waits for its task, in bwrap on a worker."""
SLEEPS = "import sys; print('here', flush=True); sys.stdin.read()"


@contextmanager
def running(*words: str, **env: str) -> Iterator[int]:
    """A process of ours with these words in its command line; its pid."""
    command = [sys.executable, "-c", SLEEPS, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield process.pid
    finally:
        process.communicate()


def seen(pid: int) -> bool:
    return any(f"pid={pid}," in each for each in processes(f"nobody-{uuid.uuid4().hex}"))


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "ewms.tms.condor.helper"),
        ("-I", "-S", "/x/ewms/testing/schedd/helper.py", "--socket", "y"),
        ("/tmp/run-1/shifted.py", "/tmp/run-1/clock", "tms"),
        ("-m", "ewms", "pilot"),
        ("-I", "-S", "/x/ewms/pilot/containers/launcher.py"),
        ("run", "--mount", "type=bind,source=/y/ewms-pilot-data/1/task-io,target=/z"),
    ],
)
def test_each_process_of_a_run_is_seen_by_its_command_line(words: Sequence[str]) -> None:
    with running(*words) as pid:
        assert seen(pid)
    assert not seen(pid)


@pytest.mark.parametrize(
    ("line", "is_in_one"),
    [
        (MOUNT, True),
        (MOUNT.replace(" /ewms-pilot-data/", " /var/lib/x/ewms-pilot-data/"), False),
        ("22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw", False),
        ("", False),
    ],
    ids=["in-a-container", "the-machines-own-place", "something-else", "nothing"],
)
def test_a_container_that_waits_for_its_task_is_seen_by_its_mounts(line: str, is_in_one: bool) -> None:
    others = "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    assert has_task_io(f"{others}{line}\n{others}") is is_in_one


def test_an_interruption_is_noted_for_the_job_whose_pilot_it_was_also_if_that_comes_meanwhile() -> None:
    marker = uuid.uuid4().hex
    jobs = [job_of(f"{marker}-{number}") for number in range(3)]
    no: Any = None
    system = System(no, no, no, no, no, no, no, no, marker, lambda _text: None, jobs=jobs)

    def pilot(job: Job) -> AbstractContextManager[int]:
        return running("-m", "ewms", "pilot", QUEUE_INCOMING=job.workflow.queue_in, MARKER=marker)

    with pilot(jobs[0]) as first, pilot(jobs[0]), pilot(jobs[1]), ExitStack() as later:
        assert (jobs[0], first) in [(job, each.pid) for job, each in system.pilots(jobs)]
        with system.interrupting(jobs[:2]):
            assert [job.interruptions for job in jobs] == [2, 1, 0]
            for job in jobs[1:]:
                later.enter_context(pilot(job))
        assert [job.interruptions for job in jobs] == [2, 2, 0]
        with system.interrupting(at_most=1):
            pass
        assert [job.interruptions for job in jobs] == [3, 3, 1]


def job_of(queue: str) -> Job:
    workflow: Any = SimpleNamespace(queue_in=queue)
    return Job(workflow, 2, "", is_base=True)
