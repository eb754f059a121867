"""The launcher program: starts processes and leaves none of them behind, whatever they do.

It runs as a process of its own (`python -I -S launcher.py`, standard library only) beside the pilot, which passes it
one socket for each process to start. For each one it has forked a *supervisor*, ahead of time: a session leader and
child subreaper, so that every descendant stays below it, also after a double fork, `setsid` or with all signals
ignored. The supervisor kills that whole tree when the main process ended, when the pilot asks for it, and when the
pilot is gone: all the pilot has to do for that, even by dying, is to close its end of the socket.

Why not from the pilot itself: Trio forks in threads that come and go, so PR_SET_PDEATHSIG would kill tasks at random,
and a pilot that was killed with -9 could not clean up.

On a task's socket:
    → four bytes of length, then {"argv", "env", "cwd", "stdin", "stdout", "stderr", "term_wait"}
    ← {"started": PID} or {"error": "why not"}, a line
    → end of file: stop it (SIGTERM to all, `term_wait` s, SIGKILL to all)
    ← {"code": N, "cpu_s": S, "max_rss": BYTES, "swept": N, "survivors": [PID, …]}, a line, after the tree is gone
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

TYPE_CHECKING = False  # importing typing would double the start-up time
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
    Ended = int  # the wait status

PR_SET_CHILD_SUBREAPER = 36
SWEEP_DEADLINE_S = 20.0
"""A process that does not die of SIGKILL for so long hangs in the kernel; it is named and left."""
_POLL_S = 0.005
_LEAVING_S = 0.02
_MANY = 4096
_PILOT_GONE = b"."
_CHANGEABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serve the pilot at the other end of standard input until it is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pilot alone decides when it is over
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel
    _become_subreaper()
    gc.freeze()  # a collection in a supervisor would touch, and so copy, all that it has from here
    control = socket.socket(fileno=0)
    control.setblocking(True)
    while _one_more(control):
        pass
    _outlast_supervisors()


def _one_more(control: socket.socket) -> bool:
    """Fork a supervisor, which waits for a task of its own; whether the pilot is still there when it has one."""
    telling, told = os.pipe()
    if os.fork() == 0:
        os.close(telling)
        _supervisor(control, told)
    os.close(told)
    with os.fdopen(telling, "rb") as pipe:
        return pipe.read() != _PILOT_GONE


def _outlast_supervisors() -> None:
    # Each supervisor saw the same end of file and is at work. What is left after them lost its supervisor.
    deadline = time.monotonic() + SWEEP_DEADLINE_S
    while _descendants(os.getpid()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for pid in _descendants(os.getpid()):
        _kill(pid, signal.SIGKILL)


def _supervisor(control: socket.socket, told: int) -> None:
    status = 1
    try:
        os.setsid()
        _become_subreaper()
        data, fds, _, _ = socket.recv_fds(control, 1, 1)
        os.write(told, data or _PILOT_GONE)
        os.close(told)
        control.close()
        if data:
            os.set_inheritable(fds[0], False)  # else a task could answer in its supervisor's place
            with socket.socket(fileno=fds[0]) as pilot:
                pilot.setblocking(True)
                _supervise(pilot)
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the pilot went away in the middle; the tree is swept by then
    except BaseException:  # noqa: ASYNC103, BLE001  a fork must never return into the launcher's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def _supervise(pilot: socket.socket) -> None:
    request = _read_request(pilot)
    if request is None:
        return
    wakeups, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        main_pid = _start(request)
    except (OSError, ValueError) as error:
        _send(pilot, {"error": str(error)})
        return
    try:
        _send(pilot, {"started": main_pid})
        ended = _wait(main_pid, pilot, wakeups)
    except OSError:
        ended = None
    if ended is None:
        ended = _terminate(main_pid, request["term_wait"], wakeups)
    ended, swept, survivors = _sweep(main_pid, ended, wakeups)
    _send(pilot, _result(ended, swept, survivors))


def _read_request(pilot: socket.socket) -> Message | None:
    head = _read_exactly(pilot, 4)
    body = head and _read_exactly(pilot, struct.unpack("!I", head)[0])
    return json.loads(body) if body else None


def _read_exactly(pilot: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = pilot.recv(min(size - len(parts), 1 << 20))
        if not part:
            return b""  # the pilot changed its mind before anything was started
        parts += part
    return parts


def _start(request: Message) -> int:
    argv = request["argv"]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    streams = [
        _stdin(request["stdin"]),
        os.open(request["stdout"], flags, 0o600),
        os.open(request["stderr"], flags, 0o600),
    ]
    os.chdir(request["cwd"])
    try:
        # Not fork: this interpreter's pages would be copied as they are touched.
        return os.posix_spawn(
            argv[0],
            argv,
            request["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=_CHANGEABLE,
        )
    except OSError as error:
        raise OSError(f"{argv[0]}: {error.strerror}") from None
    finally:
        for fd in streams:
            os.close(fd)


def _stdin(text: str) -> int:
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait(main_pid: int, pilot: socket.socket, wakeups: int) -> Ended | None:
    """Wait for the main process (its status and usage) or for the pilot's end of file (None)."""
    poll = select.poll()
    poll.register(wakeups, select.POLLIN)
    poll.register(pilot.fileno(), select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if wakeups in ready:
            os.read(wakeups, _MANY)
            ended = _reap(main_pid, None)[0]
            if ended is not None:
                return ended
        if pilot.fileno() in ready and not pilot.recv(4096):
            return None


def _terminate(main_pid: int, wait_s: float, wakeups: int) -> Ended | None:
    for pid in _descendants(os.getpid()):
        _kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    ended = None
    while time.monotonic() < deadline:
        ended, children = _reap(main_pid, ended)
        if not children:
            break
        _until_a_child_ends(wakeups, deadline - time.monotonic())
    return ended


def _sweep(main_pid: int, ended: Ended | None, wakeups: int) -> tuple[Ended | None, set[int], list[int]]:
    """Kill all that is left below this supervisor, again and again: what is killed may have forked meanwhile."""
    swept: set[int] = set()
    deadline = time.monotonic() + SWEEP_DEADLINE_S
    ended, children = _reap(main_pid, ended)
    if children:  # the first process of a container may be on its way out already
        _until_a_child_ends(wakeups, _LEAVING_S)
        ended, children = _reap(main_pid, ended)
    while children and time.monotonic() < deadline:
        for pid in _descendants(os.getpid()):
            _kill(pid, signal.SIGKILL)
            swept.add(pid)
        _until_a_child_ends(wakeups, _POLL_S)
        ended, children = _reap(main_pid, ended)
    # Without children there are no descendants: orphans would be ours. It saves a look at the whole of /proc.
    return ended, swept, _descendants(os.getpid()) if children else []


def _until_a_child_ends(wakeups: int, at_most_s: float) -> None:
    if select.select([wakeups], [], [], max(0.0, at_most_s))[0]:
        os.read(wakeups, _MANY)


def _reap(main_pid: int, ended: Ended | None) -> tuple[Ended | None, bool]:
    """Reap what is there to reap; the main process's end, and whether this process still has children."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        if pid == main_pid:
            ended = status


def _descendants(root: int) -> list[int]:
    """Every process below `root`, zombies left out."""
    children: dict[int, list[tuple[int, bytes]]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  no pathlib here
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123
                    # The name in parentheses may hold anything, parentheses too.
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(int(parent), []).append((int(entry), state))
    found, todo = [], [root]
    while todo:
        for pid, state in children.get(todo.pop(), ()):
            todo.append(pid)
            if state not in b"ZX":
                found.append(pid)
    return found


def _kill(pid: int, number: int) -> None:
    # It ended, or it is a set-uid helper, which ends with its parent.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _result(ended: Ended | None, swept: set[int], survivors: list[int]) -> Message:
    code = -signal.SIGKILL if ended is None else os.waitstatus_to_exitcode(ended)
    # Of all that was reaped here: the main process, and those whose parents ended before them.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "code": 128 - code if code < 0 else code,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "max_rss": usage.ru_maxrss * 1024,
        "swept": len(swept),
        "survivors": survivors,
    }


def _send(pilot: socket.socket, message: Message) -> None:
    pilot.sendall(json.dumps(message).encode() + b"\n")


def _become_subreaper() -> None:
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("the launcher needs Linux")
    main()
