"""The living runs of one cluster, in a few bytes for each of its jobs (pure)."""

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from ewms.tms.eventlog.cluster import MAX_GAP

_NONE: Final = 0  # as a start: no run


class Place(NamedTuple):
    """Where a run is, or was."""

    site: str
    host: str


class Run(NamedTuple):
    """A run that lives or lived; `started` is in epoch s."""

    started: int
    place: Place
    has_error: bool


class Runs:
    """By proc. Places are shared between runs, so that one costs a pointer."""

    def __init__(self) -> None:
        self.living = 0
        self._started = array("q")
        self._places: list[Place] = []
        self._has_error = bytearray()

    def __contains__(self, proc: int) -> bool:
        return proc < len(self._started) and self._started[proc] != _NONE

    def begin(self, proc: int, at: int, place: Place) -> None:
        """A run begins at an epoch s; a former one of this proc that never ended is forgotten."""
        if proc + 1 - len(self._started) > MAX_GAP:
            return  # a damaged number
        self.restore(proc, Run(at, place, has_error=False))

    def restore(self, proc: int, run: Run) -> None:
        """What `items` gave."""
        missing = proc + 1 - len(self._started)
        if missing > 0:
            self._started.frombytes(bytes(missing * self._started.itemsize))
            self._places += [run.place] * missing
            self._has_error += bytes(missing)
        self.living += self._started[proc] == _NONE
        self._started[proc], self._places[proc], self._has_error[proc] = run

    def place(self, proc: int) -> Place:
        """Where a living run is."""
        return self._places[proc]

    def move(self, proc: int, place: Place) -> None:
        """A living run told where it is."""
        self._places[proc] = place

    def fail(self, proc: int) -> None:
        """A living run told an error."""
        self._has_error[proc] = True

    def end(self, proc: int) -> Run | None:
        """The run of this proc, which lives no longer; None if it has none."""
        if proc not in self:
            return None
        run = Run(self._started[proc], self._places[proc], bool(self._has_error[proc]))
        self._started[proc] = _NONE
        self.living -= 1
        return run

    def items(self) -> Iterator[tuple[int, Run]]:
        """The living runs by their procs."""
        for proc, at in enumerate(self._started):
            if at != _NONE:
                yield proc, Run(at, self._places[proc], bool(self._has_error[proc]))

    def forget_before(self, moment: int) -> None:
        """Runs that began earlier: their ends were lost."""
        for proc, at in enumerate(self._started):
            if _NONE < at <= moment:
                self.end(proc)

    def places(self) -> set[Place]:
        """Those of the living runs."""
        return {place for place, at in zip(self._places, self._started, strict=True) if at != _NONE}
