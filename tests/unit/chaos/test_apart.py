"""What a command starts ends with it, even when it is killed; needs root."""

import os
import signal
import subprocess
import sys
import uuid

import pytest
import trio

from ewms.testing import outside
from tests.apart import command

PATIENCE_S = 60
LEAVES_ONE_BEHIND = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
print("started", flush=True)
time.sleep(float(sys.argv[2]))
sys.exit(7)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def started(marker: str, seconds: float) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", LEAVES_ONE_BEHIND, marker, str(seconds)]
    process = subprocess.Popen(command(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.readline()
    if b"unshare" in said:
        process.wait(PATIENCE_S)
        pytest.skip(said.decode())
    assert said == b"started\n"
    return process


async def nothing_is_left(marker: str) -> None:
    await outside.until(lambda: not outside.marked(marker), "all gone", PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_is_killed_leaves_nothing(number: int) -> None:
    marker = uuid.uuid4().hex
    process = await trio.to_thread.run_sync(started, marker, 600.0)
    try:
        (first, *_) = [each for each in outside.marked(marker) if each.parent == process.pid]
        os.kill(process.pid if number == signal.SIGKILL else first.pid, number)
        await nothing_is_left(marker)
    finally:
        process.kill()
        process.communicate()


async def test_what_ends_leaves_nothing_and_its_status_is_told() -> None:
    marker = uuid.uuid4().hex
    process = await trio.to_thread.run_sync(started, marker, 0.0)
    await trio.to_thread.run_sync(process.communicate)
    assert process.returncode == 7
    await nothing_is_left(marker)
