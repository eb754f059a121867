"""However a pool ends, it leaves nothing: no process, no mount, no listening port. Seen from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ewms.testing.pool import PoolUnavailable

pytestmark = pytest.mark.pool

OPENER = Path(__file__).with_name("pool_opener.py")
OPEN_DEADLINE_S = 300
END_DEADLINE_S = 60


def processes_in(namespace: str) -> set[int]:
    """The processes of a PID namespace, as the host sees them."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "ns" / "pid").readlink().name == namespace:
                found.add(int(directory.name))
        except OSError:
            continue
    return found


def processes_that_name(text: str) -> set[int]:
    """The processes with `text` in their command line, but ourselves."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (directory / "cmdline").read_bytes():
                found.add(int(directory.name))
        except OSError:
            continue
    return found - {os.getpid()}


def mounts_that_name(text: str) -> list[str]:
    """Lines of any process's mount table."""
    found = []
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [line for line in table.read_text().splitlines() if text in line]
        except OSError:
            continue
    return found


def listening_ports() -> set[int]:
    """TCP ports that anybody on this machine listens at."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"}


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + END_DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("ending", ["exception", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left(ending: str, session_dir: Path, needed: Callable[[], AbstractContextManager[None]]) -> None:
    work_dir = session_dir / f"lifecycle-{ending}"
    work_dir.mkdir()
    wheel = os.environ.get("EWMS_TEST_WHEEL", "")
    fails = "fails" if ending == "exception" else "waits"
    before = listening_ports()
    with subprocess.Popen(
        [sys.executable, str(OPENER), str(work_dir), wheel, fails],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as opener:
        assert opener.stdout is not None
        assert opener.stderr is not None
        line = opener.stdout.readline()
        if not line:
            reason = opener.stderr.read().strip().splitlines()[-1]
            with needed():
                raise (PoolUnavailable if "PoolUnavailable" in reason else AssertionError)(reason)
        told = json.loads(line)
        namespace = Path(f"/proc/{told['init_pid']}/ns/pid").readlink().name
        port = int(told["address"].rpartition(":")[2])
        if ending != "exception":
            # What we look for later is really there now: daemons and jobs, mounts, a port.
            inside = processes_in(namespace)
            assert len(inside) > 10
            assert mounts_that_name(str(work_dir))
            assert port in listening_ports()
            opener.send_signal(signal.Signals[ending])
        try:
            opener.wait(END_DEADLINE_S)
        finally:
            opener.kill()
        if ending == "exception":
            assert "ArithmeticError: as told" in opener.stderr.read()
    assert eventually(lambda: not processes_in(namespace))
    assert eventually(lambda: not processes_that_name(str(work_dir)))
    assert eventually(lambda: not mounts_that_name(str(work_dir)))
    assert port not in listening_ports()
    if ending in {"exception", "SIGINT"}:
        assert not (work_dir / ".root").exists()
    assert "Started DaemonCore process" in (work_dir / "logs" / "condor" / "MasterLog").read_text()
    assert (work_dir / "logs" / "rabbitmq" / "rabbitmq.log").stat().st_size
    # Other suites may start and stop servers of their own meanwhile; the pool's ports are gone in any case.
    assert port not in before
