"""The memory and the CPU time of a process tree, from /proc."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_KB: Final = 1024


def tree_memory(root: int) -> int:
    """Bytes that `root` and its descendants have; pages that they share are counted once between them.

    Processes that ended, or cannot be read, count nothing. A child whose parent ended is the supervisor's, and counts
    as well: it is looked for there.
    """
    return sum(_pss(pid) for pid in _tree(parent_of(root) or root))


def tree_cpu(root: int) -> float:
    """Seconds of user and system time that `root` and its descendants have used, those that ended included.

    The tree is that of `tree_memory`.
    """
    return sum(_ticks(pid) for pid in _tree(parent_of(root) or root)) / os.sysconf("SC_CLK_TCK")


def _tree(root: int) -> Iterator[int]:
    todo = [root]
    while todo:
        for pid in _children(todo.pop()):
            todo.append(pid)
            yield pid


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """A process's parent; 0 if it ended."""
    return int(_stat(pid)[1])


def _ticks(pid: int) -> int:
    # Its own, and of the children that it waited for: user and system time each.
    return sum(map(int, _stat(pid)[11:15]))


def _stat(pid: int) -> list[bytes]:
    """The fields of a process from its state on; zeros if it ended."""
    try:
        # The name in parentheses may hold anything, parentheses too.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return [b"0"] * 15


def _pss(pid: int) -> int:
    for name, word in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
        except OSError:
            continue  # it ended, or it is not ours to look into so closely
        for line in lines:
            if line.startswith(word):
                return int(line.split()[1]) * _KB
    return 0
