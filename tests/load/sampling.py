"""Memory and open files of processes while they work, and whether they grew."""

import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

_MB = 1e6


@attrs.frozen
class Sample:
    """One look."""

    at: float
    """s since the beginning."""
    done: float
    """How much work was done by then, in the part's unit."""
    memory: float
    """MB that are resident, of all its processes together."""
    files: int
    """Open descriptors, of all its processes together."""


@attrs.frozen
class Series:
    """One part's run."""

    part: str
    what: str
    unit: str
    samples: Sequence[Sample]
    """The first ones are of the time when it was loaded up."""
    settled: float
    """From so much work on nothing should grow any more."""
    processes: int = 1
    """That the samples add up."""
    seen: str = ""
    """What was found besides, for the table."""

    @property
    def flat(self) -> list[Sample]:
        """The samples that are compared."""
        return [sample for sample in self.samples if sample.done >= self.settled]

    def growth(self) -> tuple[float, int]:
        """By how many MB, and how many descriptors, the last quarter lies above the first one."""
        found = self.flat
        quarter = max(1, len(found) // 4)
        first, last = found[:quarter], found[-quarter:]
        memory = statistics.median(each.memory for each in last) - statistics.median(each.memory for each in first)
        return memory, max(each.files for each in last) - max(each.files for each in first)


def look(pids: Iterable[int]) -> tuple[float, int]:
    """MB and descriptors of these processes now; those that are gone count nothing."""
    memory, files = 0.0, 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            files += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  a number is wanted, no paths
        except OSError:
            continue
        memory += next((int(line.split()[1]) * 1024 / _MB for line in status.splitlines() if "VmRSS" in line), 0.0)
    return memory, files


def tell(began: float, done: float) -> None:
    """Print a sample of this process as a line of JSON, for `heard`."""
    memory, files = look([os.getpid()])
    print(json.dumps(attrs.asdict(Sample(time.monotonic() - began, done, memory, files))), flush=True)


def heard(said: str) -> list[Sample]:
    """The samples in what a process printed."""
    return [Sample(**json.loads(line)) for line in said.splitlines() if line.startswith("{")]
