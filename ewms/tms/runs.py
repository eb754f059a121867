"""The living runs of one cluster, in a few bytes for each of its jobs (pure)."""

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ewms.tms.eventlog.cluster import MAX_GAP, JsonObject
from ewms.tms.eventlog.packed import pack, unpack

_NONE: Final = 0  # as a start: no run


class Place(NamedTuple):
    """Where a run is, or was."""

    site: str
    host: str


class Run(NamedTuple):
    """A run that ended; it started at an epoch s."""

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
        self._dumped: JsonObject | None = None
        """While nothing changed since."""

    def begin(self, proc: int, at: int, place: Place) -> None:
        """A run begins at an epoch s; a former one of this proc that never ended is forgotten."""
        missing = proc + 1 - len(self._started)
        if missing > MAX_GAP:
            return  # a damaged number
        self._dumped = None
        if missing > 0:
            self._started.frombytes(bytes(missing * self._started.itemsize))
            self._places += [place] * missing
            self._has_error += bytes(missing)
        self.living += self._started[proc] == _NONE
        self._started[proc], self._places[proc], self._has_error[proc] = at, place, False

    def place(self, proc: int) -> Place | None:
        """Where a living run is; None where this proc has none."""
        started = self._started
        return self._places[proc] if proc < len(started) and started[proc] else None

    def move(self, proc: int, place: Place) -> None:
        """A living run told where it is."""
        self._places[proc], self._dumped = place, None

    def fail(self, proc: int) -> None:
        """A living run told an error."""
        self._has_error[proc], self._dumped = True, None

    def end(self, proc: int) -> Run | None:
        """The run of this proc, which lives no longer; None if it has none."""
        started = self._started
        if proc >= len(started) or not started[proc]:
            return None
        run = Run(started[proc], self._places[proc], bool(self._has_error[proc]))
        started[proc], self._dumped = _NONE, None
        self.living -= 1
        return run

    def forget_before(self, moment: int) -> None:
        """Runs that began earlier: their ends were lost."""
        for proc, at in enumerate(self._started):
            if _NONE < at <= moment:
                self.end(proc)

    def places(self) -> set[Place]:
        """Those of the living runs."""
        return {place for place, at in zip(self._places, self._started, strict=True) if at != _NONE}

    # --- on disk ---

    def dump(self) -> JsonObject:
        """All of it, as JSON values."""
        if self._dumped is None:
            numbers: dict[Place, int] = {}
            places = array("I", (numbers.setdefault(place, len(numbers)) for place in self._places))
            self._dumped = {
                "started": pack(self._started),
                "places": [list(numbers), pack(places)],
                "errors": pack(array("B", self._has_error)),
            }
        return self._dumped

    @classmethod
    def load(cls, saved: Mapping[str, Any], share: Callable[[Place], Place]) -> "Runs":
        """What `dump` gave, with places that are shared; raises ValueError, LookupError or TypeError if it did not."""
        self = cls()
        self._started, self._has_error = unpack(saved["started"], "q"), bytearray(unpack(saved["errors"], "B"))
        names, numbers = saved["places"]
        places = [share(Place(site, host)) for site, host in names]
        self._places = [places[number] for number in unpack(numbers, "I")]
        if not len(self._started) == len(self._places) == len(self._has_error):
            raise ValueError("runs of different lengths")
        self.living = len(self._started) - self._started.count(_NONE)
        return self
