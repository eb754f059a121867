"""One piece of work that several rows tell of: the first row does it, the others take, run by run, what it gave."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from measure import Contender

Work = Callable[[], Mapping[str, float]]
"""Does its work once and returns its figures by name."""


class Figures:
    """Contenders of rows that are measured in the order in which they are made here."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._first = ""
        self._kept: defaultdict[str, deque[float]] = defaultdict(deque)

    def __getitem__(self, name: str) -> Contender:
        """The contender of the figure `name`; the one that is asked for first does the work."""
        self._first = self._first or name
        return self._run if name == self._first else lambda: self._kept[name].popleft()

    def _run(self) -> float:
        figures = self._work()
        for name, figure in figures.items():
            self._kept[name].append(figure)
        return figures[self._first]
