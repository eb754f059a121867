"""What runs on this machine, looked at from outside of pilots, containers and pools."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import trio

_POLL_S = 0.2


@attrs.frozen
class Process:
    """One process as the kernel shows it to root."""

    pid: int
    parent: int
    command_line: bytes = attrs.field(repr=lambda words: words.replace(b"\0", b" ").decode(errors="replace")[:150])
    environment: bytes = attrs.field(repr=False)

    @property
    def is_pilot(self) -> bool:
        return b"-m\0ewms\0pilot" in self.command_line


def processes() -> Iterator[Process]:
    """All of them; those that end meanwhile are left out."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold anything.
            state, parent = (directory / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                words, variables = ((directory / name).read_bytes() for name in ("cmdline", "environ"))
                yield Process(int(directory.name), int(parent), words, variables)
        except OSError:
            continue


def marked(marker: str) -> list[Process]:
    """Those with `marker` among their arguments or variables: a task's, and its pilot, who is told what to run."""
    text = marker.encode()
    return [each for each in processes() if text in each.command_line or text in each.environment]


def pilots(marker: str) -> list[Process]:
    """The pilots whose tasks have `marker` among their arguments."""
    return [each for each in marked(marker) if each.is_pilot]


def tasks(marker: str) -> list[Process]:
    """The processes of tasks with `marker` among their arguments, their container runtime's included."""
    return [each for each in marked(marker) if marker.encode() in each.command_line]


def descendants(root: int) -> set[int]:
    """The processes below one; a namespace and a subreaper keep all there."""
    parents = {each.pid: each.parent for each in processes()}

    def is_below(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == root:
                return True
        return False

    return {pid for pid in parents if is_below(pid)}


def descendants_of_us() -> set[int]:
    """The processes below this one."""
    return descendants(os.getpid())


def launchers() -> list[Process]:
    """The pilots' helpers that start tasks, below this process."""
    ours = descendants_of_us()
    return [each for each in processes() if each.pid in ours and b"containers/launcher.py" in each.command_line]


def send(pid: int, number: int) -> bool:
    """Send a signal; False if the process has ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], object], what: str, within: float) -> float:
    """Wait until `condition` holds; the s that it took."""
    began = trio.current_time()
    while not condition():
        assert trio.current_time() - began < within, f"not {what} within {within} s"
        await trio.sleep(_POLL_S)
    return trio.current_time() - began
