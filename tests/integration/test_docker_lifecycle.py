"""However the machine with a Docker daemon ends, it leaves nothing. Seen from outside.

    python test_docker_lifecycle.py WORK_DIR [WHEEL]

opens one with a container in it and waits to be ended.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from ewms.testing.docker import CGROUP_PREFIX, open_docker
from ewms.testing.pool import PoolUnavailable
from ewms.testing.pool.cgroups import cgroups_here, remove_cgroups

END_DEADLINE_S = 60


@pytest.mark.docker
@pytest.mark.parametrize("ending", ["SIGINT", "SIGKILL"])
def test_nothing_is_left(ending: str, session_dir: Path, needed: Callable[[], AbstractContextManager[None]]) -> None:
    work_dir = session_dir / f"docker-{ending}"
    work_dir.mkdir()
    argv = [sys.executable, __file__, str(work_dir), *filter(None, [os.environ.get("EWMS_TEST_WHEEL")])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as opener:
        assert opener.stdout is not None
        assert opener.stderr is not None
        if not opener.stdout.readline():
            reason = opener.stderr.read().strip().splitlines()[-1]
            with needed():
                raise (PoolUnavailable if "PoolUnavailable" in reason else AssertionError)(reason)
        # What we look for later is really there now.
        assert _processes("sleep\0" + "4321")
        assert _mounts(work_dir)
        assert _cgroups(opener.pid)
        opener.send_signal(signal.Signals[ending])
        try:
            opener.wait(END_DEADLINE_S)
        finally:
            opener.kill()
    assert _eventually(lambda: not _processes(str(work_dir)))
    assert _eventually(lambda: not _processes("sleep\0" + "4321"))
    assert _eventually(lambda: not _mounts(work_dir))
    if ending == "SIGKILL":
        # Nobody was left to do it: the next run does, or whoever asks for it.
        remove_cgroups(CGROUP_PREFIX)
    assert not _cgroups(opener.pid)


def _processes(text: str) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (directory / "cmdline").read_bytes() and directory.name != str(os.getpid()):
                found.append(directory.name)
        except OSError:
            continue
    return found


def _mounts(work_dir: Path) -> list[str]:
    found = []
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [line for line in table.read_text().splitlines() if str(work_dir) in line]
        except OSError:
            continue
    return found


def _cgroups(pid: int) -> list[Path]:
    return [found for mount in cgroups_here() for found in mount.glob(f"{CGROUP_PREFIX}{pid}")]


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + END_DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def _main(work_dir: Path, wheel: Path | None) -> None:
    async with open_docker(work_dir, progress=lambda _: None, wheel=wheel) as host:
        await host.run(["docker", "run", "--detach", host.task_image, "sleep", "4321"])
        print("open", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_main, Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
