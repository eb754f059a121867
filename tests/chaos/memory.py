"""Memory and open files of the processes that live long, over the time that they live (pure)."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

SPANS: Final = 8
"""Into so many parts the time is cut."""
_OLD: Final = 0.9
"""Who lived for so much of the longest life of its role is looked at."""
LONG_MIN: Final = 15.0
"""Of shorter lives nobody can say that they are flat."""
_ALLOWED_MB: Final = 5.0
_ALLOWED_FILES: Final = 8
"""A few tasks, connections and helpers more than at the beginning; what leaks, leaks with each event or fault."""


@attrs.frozen
class Sample:
    """One look at one process."""

    at: float
    """s after the first fault could come."""
    role: str
    """What it is: the TMS, a helper, a pilot."""
    pid: int
    memory: float
    """MB that are resident."""
    files: int
    """Open descriptors."""


@attrs.frozen
class Life:
    """The oldest processes of a role, on average."""

    role: str
    processes: int
    minutes: float
    """For which they were seen."""
    memory: tuple[float, ...]
    """MB, the median of each part of that time."""
    files: tuple[int, ...]
    """The most descriptors of one, in each part of that time."""

    @property
    def grown(self) -> float:
        """MB that the last quarter has more than the first."""
        return _growth(self.memory, statistics.mean)

    @property
    def opened(self) -> float:
        """Descriptors that the last quarter has more than the first; a moment with many more is none."""
        return _growth(self.files, min)


def lives(samples: Iterable[Sample]) -> list[Life]:
    """What the samples say of each role."""
    roles: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        roles[sample.role][sample.pid].append(sample)
    return [_life(role, list(found.values())) for role, found in sorted(roles.items())]


def _life(role: str, each: Sequence[Sequence[Sample]]) -> Life:
    longest = max(found[-1].at - found[0].at for found in each)
    old = [found for found in each if found[-1].at - found[0].at >= _OLD * longest]
    parts: list[list[Sample]] = [[] for _ in range(SPANS)]
    for found in old:
        for sample in found:
            age = sample.at - found[0].at
            parts[min(SPANS - 1, int(age / longest * SPANS) if longest else 0)].append(sample)
    filled = [part for part in parts if part]
    return Life(
        role,
        len(old),
        longest / 60,
        tuple(round(statistics.median(sample.memory for sample in part), 1) for part in filled),
        tuple(max(sample.files for sample in part) for part in filled),
    )


def _growth(parts: Sequence[float], typical: Callable[[Sequence[float]], float]) -> float:
    quarter = max(1, len(parts) // 4)
    return typical(parts[-quarter:]) - typical(parts[:quarter])


def judge(found: Iterable[Life]) -> list[str]:
    """Who lives long does not grow."""
    old = [life for life in found if life.minutes >= LONG_MIN]
    return [
        f"{life.role}: grew by {life.grown:.1f} MB in {life.minutes:.0f} minutes: {life.memory}"
        for life in old
        if life.grown > _ALLOWED_MB
    ] + [
        f"{life.role}: {life.opened:.0f} more descriptors after {life.minutes:.0f} minutes: {life.files}"
        for life in old
        if life.opened > _ALLOWED_FILES
    ]


def parse(value: Mapping[str, Any]) -> Life:
    """A life from JSON."""
    return Life(**{**value, "memory": tuple(value["memory"]), "files": tuple(value["files"])})


HEADINGS: Final = ("process", "how many", "lived, min", "MB, by eighths of that time", "grown", "descriptors, likewise")


def row(life: Life) -> tuple[str, ...]:
    """For a table."""
    return (
        life.role,
        str(life.processes),
        f"{life.minutes:.0f}",
        " ".join(f"{each:.1f}" for each in life.memory),
        f"{life.grown:+.1f}",
        " ".join(map(str, life.files)),
    )
