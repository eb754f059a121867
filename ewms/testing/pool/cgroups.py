"""Cgroups of machines for tests: those of one run have a name of their own in each hierarchy, and none stays."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")


@contextmanager
def own_cgroup(prefix: str) -> Iterator[str]:
    """A name for this run's cgroup; at the end it goes, and so does what killed runs with this `prefix` left."""
    try:
        yield f"{prefix}{os.getpid()}"
    finally:
        remove_cgroups(prefix)


def remove_cgroups(prefix: str) -> None:
    """Remove our own cgroup, and those of runs that ended; only a killed one leaves any, and they are empty."""
    for mount in cgroups_here():
        for top in mount.glob(f"{prefix}*"):
            pid = top.name.removeprefix(prefix)
            # A living run's empty ones may be about to be used.
            if pid == str(os.getpid()) or not Path("/proc", pid).exists():
                _remove_cgroup(top)


def _remove_cgroup(top: Path) -> None:
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):  # something is in it after all, or another run was faster
            Path(directory).rmdir()


def cgroups_here() -> list[Path]:
    """Where cgroups are mounted on this machine; the ones above before those below."""
    return cgroup_mounts(Path("/proc/self/mounts").read_text())


def cgroup_mounts(mounts: str) -> list[Path]:
    """The same, by the text of `/proc/self/mounts`."""
    rows = [line.split(" ") for line in mounts.splitlines()]
    found = {Path(row[1]) for row in rows if len(row) > 2 and row[2] in ("tmpfs", "cgroup", "cgroup2")}
    return sorted(path for path in found if path == _CGROUPS or _CGROUPS in path.parents)
