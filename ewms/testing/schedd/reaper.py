"""A small process around one worker, so that nothing of the worker's is left when it ends (standard library only).

It is a child subreaper: whatever the worker starts, also what detaches itself, becomes its child at last, and is
killed when the worker's main process ends, when it is told to, or when its standard input closes (the daemon died).

Started with `python -I -S reaper.py`. Lines in: a JSON object `{"argv", "env", "cwd", "stdout", "stderr", "orphaned"}`
(the last is a directory to remove when the daemon died), then `term` (SIGTERM for the main process) and `kill`
(SIGKILL, for the rest too). Lines out: `started PID`, `ended WAIT-STATUS USER-S SYSTEM-S MAX-RSS-KB`.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOT_STARTED: Final = 255
"""The exit status of a worker whose program could not be started, as in a container without it."""


def become_subreaper() -> None:
    """Orphaned descendants become children of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """Our children, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue  # it ended just now
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def kill_children(spare: Collection[int] = ()) -> None:
    """SIGKILL and reap until none is left but `spare`: those of a killed child become ours, and are next."""
    while victims := [pid for pid in children() if pid not in spare]:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)  # a child that has ended keeps its pid until we reap it
        for pid in victims:
            os.waitpid(pid, 0)


class _Worker:
    """The worker, and the orders about it."""

    def __init__(self) -> None:
        self.pid = 0
        self._orders = b""
        self._orphaned = ""

    def read_orders(self) -> None:
        """Read what has come on standard input, and do it."""
        piece = os.read(0, 65536)
        if not piece:
            kill_children()
            shutil.rmtree(self._orphaned, ignore_errors=True)
            sys.exit(1)
        *lines, self._orders = (self._orders + piece).split(b"\n")
        for line in lines:
            if self.pid == 0:
                self._begin(json.loads(line))
            else:
                # The rest of its tree follows when it has ended. Until we reap it, its pid is its own.
                os.kill(self.pid, {b"term": signal.SIGTERM, b"kill": signal.SIGKILL}[line])

    def _begin(self, spec: Mapping[str, Any]) -> None:
        self._orphaned = spec["orphaned"]
        self.pid = _start(spec)
        _say("started", self.pid)


def main() -> None:
    """Run one worker."""
    become_subreaper()
    for each in _IGNORED:
        signal.signal(each, signal.SIG_IGN)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    worker = _Worker()
    ended = None
    while ended is None:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            ended = _reap(worker.pid)
        elif 0 in readable:
            worker.read_orders()
    kill_children()
    _say("ended", *ended)


def _say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201  its protocol


def _reap(worker: int) -> tuple[int, float, float, int] | None:
    """Reap what has ended; the worker's wait status and usage when it is among them."""
    ended = None
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == worker:
            ended = (status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss)


def _start(spec: Mapping[str, Any]) -> int:
    # A signal that comes before the child no longer ignores it would be lost: blocked, it waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    try:
        os.setsid()
        for each in (*_IGNORED, signal.SIGCHLD):
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.chdir(spec["cwd"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(os.open(spec["stdout"], flags, 0o644), 1)
        os.dup2(os.open(spec["stderr"], flags, 0o644), 2)
        os.closerange(3, 65536)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606  no shell is the point
    except OSError as error:
        os.write(2, f"{spec['argv'][0]}: {error}\n".encode(errors="replace"))
    os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()
