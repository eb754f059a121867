"""The launcher program: starts processes and leaves none of them behind, whatever they do.

It runs as a process of its own (`python -I -S launcher.py`, standard library only) beside the pilot, which passes it
one socket for each process to start. It keeps *supervisors* for them, always one more than are at work: each is a
session leader and child subreaper, so that every descendant stays below it, also after a double fork, `setsid` or with
all signals ignored. The supervisor kills that whole tree when the main process ended, when the pilot asks for it, and
when the pilot is gone: all the pilot has to do for that, even by dying, is to close its end of the socket. With nothing
left below it, it serves the next process.

Why not from the pilot itself: Trio forks in threads that come and go, so PR_SET_PDEATHSIG would kill tasks at random,
and a pilot that was killed with -9 could not clean up.

On a task's socket, each message of the pilot's after four bytes of length:
    → {"argv", "env", "cwd", "stdin", "stdout", "stderr", "term_wait"}; its stdin may be null: it comes later
    ← {"started": PID} or {"error": "why not"}, a line
    ← {"waiting": true}, a line, when a process whose standard input comes later wrote to its file descriptor 3
    → what that is to read on its standard input
    → end of file: stop it (SIGTERM to all, `term_wait` s, SIGKILL to all)
    ← {"code": N, "cpu_s": S, "max_rss": BYTES, "swept": N, "survivors": [PID, …]}, a line, after the tree is gone
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
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

PR_SET_CHILD_SUBREAPER = 36
SWEEP_DEADLINE_S = 20.0
"""A process that does not die of SIGKILL for so long hangs in the kernel; it is named and left."""
_POLL_S = 0.005
_LEAVING_S = 0.02
_MANY = 4096
_IDLE, _BUSY, _PILOT_GONE = b"i", b"b", b"g"
"""What a supervisor says of itself."""
_OUTPUT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
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
    supervisors: dict[int, bytes] = {}  # where it speaks → what it said last
    poll = select.poll()
    while _PILOT_GONE not in supervisors.values():
        if _IDLE not in supervisors.values():
            pipe = _new_supervisor(control)
            supervisors[pipe] = _IDLE
            poll.register(pipe, select.POLLIN)
        for pipe, _ in poll.poll():
            if said := os.read(pipe, 1):
                supervisors[pipe] = said
            else:  # it ended
                poll.unregister(pipe)
                os.close(pipe)
                del supervisors[pipe]
    _outlast_supervisors()


def _new_supervisor(control: socket.socket) -> int:
    """Fork one that waits for tasks; the pipe that it speaks into."""
    telling, told = os.pipe()
    if os.fork() == 0:
        os.close(telling)
        _supervisor(control, told)
    os.close(told)
    return telling


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
        wakeups = _wakeups()
        while True:
            data, fds, _, _ = socket.recv_fds(control, 1, 1)
            os.write(told, _BUSY if data else _PILOT_GONE)
            if not data:
                break
            os.set_inheritable(fds[0], False)  # else a task could answer in its supervisor's place
            with socket.socket(fileno=fds[0]) as pilot:
                pilot.setblocking(True)
                if not _supervise(pilot, wakeups):
                    break  # what does not die must not be taken for the next task's
            os.write(told, _IDLE)
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the pilot went away in the middle; the tree is swept by then
    except BaseException:  # noqa: ASYNC103, BLE001  a fork must never return into the launcher's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def _wakeups() -> int:
    """A pipe that becomes readable when a child ends."""
    wakeups, wakeup = os.pipe()
    os.set_blocking(wakeups, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakeups


def _supervise(pilot: socket.socket, wakeups: int) -> bool:
    """One task from its start to its end; whether nothing is left of it."""
    message = _read_message(pilot)
    if message is None:
        return True
    request = json.loads(message)
    _drain(wakeups)  # of what the task before left
    tree = _Tree()
    try:
        tree.main_pid, later = _start(request)
    except (OSError, ValueError) as error:
        _send(pilot, {"error": str(error)})
        return True
    gone = False
    try:
        _send(pilot, {"started": tree.main_pid})
        gone = not _wait(tree, pilot, wakeups, later)
    except OSError:
        gone = True
    finally:
        if later is not None:
            later.close()
    if gone:
        _terminate(tree, request["term_wait"], wakeups)
    swept, survivors = _sweep(tree, wakeups)
    _send(pilot, tree.result(swept, survivors))
    return not survivors


class _Later:
    """The pipes of a process that waits for its standard input."""

    def __init__(self) -> None:
        self.its_stdin, stdin = os.pipe()
        waiting, self.its_waiting = os.pipe()
        self._stdin, self._waiting = os.fdopen(stdin, "wb", buffering=0), os.fdopen(waiting, "rb", buffering=0)

    def fileno(self) -> int:
        """What becomes readable when it waits."""
        return self._waiting.fileno()

    def waits(self) -> bool:
        """Whether it does, now that something is readable; it is told once."""
        return bool(self._waiting.read(1))

    def feed(self, stdin: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError), self._stdin:  # it ended, or it has it already
            self._stdin.write(stdin)

    def close(self) -> None:
        self._stdin.close()
        self._waiting.close()


class _Tree:
    """A task's processes, as far as they were reaped here."""

    def __init__(self) -> None:
        self.main_pid = 0
        self.ended: int | None = None
        """The main process's wait status."""
        self._cpu_s = 0.0
        self._max_rss = 0

    def reap(self) -> bool:
        """Reap what is there to reap; whether this process still has children."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main_pid:
                self.ended = status
            # Of it, and of those that it waited for; orphans are reaped here too.
            self._cpu_s += usage.ru_utime + usage.ru_stime
            self._max_rss = max(self._max_rss, usage.ru_maxrss)

    def result(self, swept: set[int], survivors: list[int]) -> Message:
        code = -signal.SIGKILL if self.ended is None else os.waitstatus_to_exitcode(self.ended)
        return {
            "code": 128 - code if code < 0 else code,
            "cpu_s": self._cpu_s,
            "max_rss": self._max_rss * 1024,
            "swept": len(swept),
            "survivors": survivors,
        }


def _read_message(pilot: socket.socket) -> bytes | None:
    """None at the end of file."""
    head = _read_exactly(pilot, 4)
    body = head and _read_exactly(pilot, struct.unpack("!I", head)[0])
    return body or None


def _read_exactly(pilot: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = pilot.recv(min(size - len(parts), 1 << 20))
        if not part:
            return b""  # the pilot changed its mind before anything was started
        parts += part
    return parts


def _start(request: Message) -> tuple[int, _Later | None]:
    """The process, and its pipes, if its standard input comes later."""
    later = _Later() if request["stdin"] is None else None
    its = [later.its_stdin, later.its_waiting] if later else [_stdin(request["stdin"])]
    opened = list(its)
    try:
        opened.extend(os.open(request[name], _OUTPUT, 0o600) for name in ("stdout", "stderr"))
        os.chdir(request["cwd"])
        streams = [its[0], *opened[len(its) :], *its[1:]]
        return _spawn(request["argv"], request["env"], streams), later
    except OSError:
        if later is not None:
            later.close()
        raise
    finally:
        for fd in opened:
            os.close(fd)


def _spawn(argv: list[str], env: dict[str, str], streams: list[int]) -> int:
    try:
        # Not fork: this interpreter's pages would be copied as they are touched.
        return os.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=_CHANGEABLE,
        )
    except OSError as error:
        raise OSError(f"{argv[0]}: {error.strerror}") from None


def _stdin(text: str) -> int:
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait(tree: _Tree, pilot: socket.socket, wakeups: int, later: _Later | None) -> bool:
    """Wait until the main process ended; False if the pilot's end of file came first."""
    poll = select.poll()
    poll.register(wakeups, select.POLLIN)
    poll.register(pilot, select.POLLIN)
    if later is not None:
        poll.register(later, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if later is not None and later.fileno() in ready:
            poll.unregister(later)
            if later.waits():
                _send(pilot, {"waiting": True})
        if wakeups in ready:
            _drain(wakeups)
            tree.reap()
            if tree.ended is not None:
                return True
        if pilot.fileno() in ready and not _fed(pilot, later):
            return False


def _fed(pilot: socket.socket, later: _Later | None) -> bool:
    """Take what the pilot says: standard input, or (False) nothing any more."""
    message = _read_message(pilot)
    if message is not None and later is not None:
        later.feed(message)
    return message is not None


def _terminate(tree: _Tree, wait_s: float, wakeups: int) -> None:
    for pid in _descendants(os.getpid()):
        _kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline and tree.reap():
        _until_a_child_ends(wakeups, deadline - time.monotonic())


def _sweep(tree: _Tree, wakeups: int) -> tuple[set[int], list[int]]:
    """Kill all that is left below this supervisor, again and again: what is killed may have forked meanwhile."""
    swept: set[int] = set()
    deadline = time.monotonic() + SWEEP_DEADLINE_S
    children = tree.reap()
    if children:  # the first process of a container may be on its way out already
        _until_a_child_ends(wakeups, _LEAVING_S)
        children = tree.reap()
    while children and time.monotonic() < deadline:
        for pid in _descendants(os.getpid()):
            _kill(pid, signal.SIGKILL)
            swept.add(pid)
        _until_a_child_ends(wakeups, _POLL_S)
        children = tree.reap()
    # Without children there are no descendants: orphans would be ours. It saves a look at the whole of /proc.
    return swept, _descendants(os.getpid()) if children else []


def _until_a_child_ends(wakeups: int, at_most_s: float) -> None:
    if select.select([wakeups], [], [], max(0.0, at_most_s))[0]:
        _drain(wakeups)


def _drain(wakeups: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wakeups, _MANY)


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


def _send(pilot: socket.socket, message: Message) -> None:
    pilot.sendall(json.dumps(message).encode() + b"\n")


def _become_subreaper() -> None:
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("the launcher needs Linux")
    main()
