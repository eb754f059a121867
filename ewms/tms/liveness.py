"""Which of the service's children show life: each beats by its name, and has its own allowed silence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs
import trio

_current: Final[ContextVar[Callable[[], None] | None]] = ContextVar("ewms_current_beat", default=None)


@attrs.define
class _Child:
    allowed: float
    last: float


class Pulse:
    """The signs of life of one service. Times are Trio's, in s."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}

    @contextmanager
    def child(self, name: str, allowed: float) -> Iterator[None]:
        """While this lasts, `name` must beat at least every `allowed` s.

        `beat_here()` beats for it, in this task and in those that it starts.
        """
        assert name not in self._children, name
        self._children[name] = _Child(allowed, trio.current_time())
        token = _current.set(lambda: self.beat(name))
        try:
            yield
        finally:
            _current.reset(token)
            del self._children[name]

    def beat(self, name: str) -> None:
        """A sign of life of `name`; one that is not registered (any more) is none of our business."""
        if name in self._children:
            self._children[name].last = trio.current_time()

    def names(self) -> frozenset[str]:
        """The children that there are."""
        return frozenset(self._children)

    def stuck(self) -> Mapping[str, float]:
        """The children that were silent for longer than they may, and for how long, in s."""
        now = trio.current_time()
        return {
            name: now - child.last for name, child in sorted(self._children.items()) if now - child.last > child.allowed
        }


def beat_here() -> None:
    """A sign of life of the child that this task belongs to, if it belongs to one.

    For what several children use, such as the WMS's client: each attempt of a call that is repeated for hours shows
    that its caller waits for others, and is not stuck itself.
    """
    beat = _current.get()
    if beat is not None:
        beat()
