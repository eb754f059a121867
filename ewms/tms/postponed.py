"""What failed, and when it may be tried again: later each time, so that no log grows without bound (pure)."""

from collections.abc import Callable

import attrs


@attrs.frozen
class _Failure:
    wait: float
    due: float


@attrs.define
class Postponed:
    """By name; the first wait is `first` s, each further one twice as long, up to `longest`. `clock` gives s."""

    first: float
    longest: float
    clock: Callable[[], float]
    _failures: dict[str, _Failure] = attrs.field(factory=dict, init=False)

    def fail(self, name: str) -> float:
        """It failed (again): for how long it waits now."""
        self._forget_old()
        known = self._failures.get(name)
        wait = min(self.longest, self.first if known is None else 2 * known.wait)
        self._failures[name] = _Failure(wait, self.clock() + wait)
        return wait

    def succeed(self, name: str) -> None:
        """It is done: nothing is held against it any more."""
        self._failures.pop(name, None)

    def wait(self, name: str) -> float:
        """How long it still has to wait; 0 when it may be tried."""
        known = self._failures.get(name)
        return 0.0 if known is None else max(0.0, known.due - self.clock())

    def _forget_old(self) -> None:
        # Nobody asked for it again since it could have been tried: it came to its end in another way.
        now = self.clock()
        self._failures = {name: each for name, each in self._failures.items() if now < each.due + 2 * self.longest}
