"""Which of a service's children show life.

A child shows it by what it does: each attempt of a call, each look at a directory. Where it waits on purpose (an
interval, a lock whose holder is a child itself), it rests, and that is no silence. So one limit is right for all, and
it need not be longer than the longest single step.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs
import trio


@attrs.define(eq=False)
class _Child:
    pulse: "Pulse"
    name: str
    owner: trio.lowlevel.Task
    last: float
    is_resting: bool = False


_current: Final[ContextVar[_Child | None]] = ContextVar("ewms_current_child", default=None)


class Pulse:
    """The signs of life of one service; a child may be silent for `allowed` s. Times are Trio's, in s."""

    def __init__(self, allowed: float = 300.0) -> None:
        self._allowed = allowed
        self._children: set[_Child] = set()

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """While this lasts, `name` must show life: this task, or those that it starts, by `beat_here()`."""
        child = _Child(self, name, trio.lowlevel.current_task(), trio.current_time())
        self._children.add(child)
        token = _current.set(child)
        try:
            yield
        finally:
            _current.reset(token)
            self._children.remove(child)

    def names(self) -> frozenset[str]:
        """The children that there are."""
        return frozenset(child.name for child in self._children)

    def stuck(self) -> Mapping[str, float]:
        """The children that are silent for longer than they may, and for how long, in s."""
        now = trio.current_time()
        silent = {child.name: now - child.last for child in self._children if not child.is_resting}
        return {name: silence for name, silence in sorted(silent.items()) if silence > self._allowed}


@contextmanager
def part(name: str) -> Iterator[None]:
    """While this lasts, this task is a child of its own, under the name of the child that it belongs to and its own.

    For one of several that do the same: where one is stuck, the others' signs of life hide nothing.
    """
    whole = _current.get()
    if whole is None:
        yield
    else:
        with whole.pulse.child(f"{whole.name} {name}"):
            yield


def beat_here() -> None:
    """A sign of life of the child that this task belongs to, if it belongs to one.

    For what several children use, such as the WMS's client: each attempt of a call that is repeated for hours shows
    that its caller waits for others, and is not stuck itself.
    """
    child = _current.get()
    if child is not None:
        child.last = trio.current_time()


@contextmanager
def resting() -> Iterator[None]:
    """While this lasts, silence is no sign of being stuck: it waits on purpose, or for somebody who is watched himself.

    Of a child's tasks only its first one rests: what another of them waits for keeps nobody from seeing that the
    first one is stuck.
    """
    child = _current.get()
    if child is None or child.owner is not trio.lowlevel.current_task():
        yield
        return
    before, child.is_resting = child.is_resting, True
    try:
        yield
    finally:
        child.is_resting, child.last = before, trio.current_time()


async def rest(seconds: float) -> None:
    """Sleep on purpose."""
    with resting():
        await trio.sleep(seconds)
