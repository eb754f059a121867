"""Whose container is it, and is that pilot dead? For runtimes whose containers can outlive the pilot; mostly pure.

A container's label names its pilot by boot, PID namespace, user, process id and start time. Only a pilot of the same
boot, namespace and user can be judged from here: process ids of another namespace mean nothing, and other users'
processes may be hidden. What cannot be judged is left alone while it runs.
"""

import os
from collections.abc import Callable
from pathlib import Path

import attrs

_PROC = Path("/proc")


@attrs.frozen
class Owner:
    """One pilot's process, unmistakably; its text is the label."""

    boot: str
    pid_namespace: str
    uid: int
    pid: int
    started: int
    """Clock ticks after the boot."""

    @classmethod
    def this_process(cls) -> "Owner":
        """Ourselves."""
        started = start_of(os.getpid())
        assert started is not None
        return cls(
            boot=(_PROC / "sys/kernel/random/boot_id").read_text().strip(),
            pid_namespace=os.readlink(_PROC / "self/ns/pid"),  # noqa: PTH115  no file has such a name
            uid=os.getuid(),
            pid=os.getpid(),
            started=started,
        )

    def __str__(self) -> str:
        return "/".join(str(value) for value in attrs.astuple(self))


def owner_of(label: str) -> Owner | None:
    """The owner that a label names; None if it is no such label."""
    try:
        boot, pid_namespace, uid, pid, started = label.split("/")
        return Owner(boot, pid_namespace, int(uid), int(pid), int(started))
    except ValueError:
        return None


def start_of(pid: int) -> int | None:
    """When a living process began (clock ticks after the boot); None if there is none."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in b"ZX" else int(fields[18])


def is_leftover(label: str, *, running: bool, me: Owner, start_of: Callable[[int], int | None] = start_of) -> bool:
    """Whether a container with that label was left by a pilot that is dead, and is to be removed by `me`."""
    owner = owner_of(label)
    if owner is None or owner.uid != me.uid:
        return False
    if (owner.boot, owner.pid_namespace) != (me.boot, me.pid_namespace):
        return not running
    return start_of(owner.pid) != owner.started
