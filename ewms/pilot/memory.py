"""What a pilot remembers of the events that it had: bounded, whatever comes; pure.

An event is known by its id. Where that id is a hash of the body, two equal events have one id: nothing here may then
take one of them for the other, so that only a delivery that certainly was lost makes its redelivery superfluous.
"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

import attrs

from ewms.pilot.events import Event, IdSource

MAX_REMEMBERED: Final = 10_000
"""Events of each kind; the oldest are forgotten, and then at worst run once more."""

_V = TypeVar("_V")


@attrs.frozen
class _Newest(Generic[_V]):
    """The newest entries of a mapping."""

    entries: OrderedDict[str, _V] = attrs.field(factory=OrderedDict)

    def put(self, key: str, value: _V) -> None:
        self.entries[key] = value
        self.entries.move_to_end(key)
        if len(self.entries) > MAX_REMEMBERED:
            self.entries.popitem(last=False)


@attrs.define
class Memory:
    """What became of events here."""

    _runs: int = 0
    _failed: _Newest[None] = attrs.field(factory=_Newest)
    _passed_on: _Newest[int] = attrs.field(factory=_Newest)
    """Event → `_runs` when it was last passed on."""
    _settled: _Newest[float] = attrs.field(factory=_Newest)
    """Event with an id of its own → how many failures make it a newer copy than what was settled here."""
    _lost: _Newest[int] = attrs.field(factory=_Newest)
    """Event that shares its id with its equals → how many of them were settled here and will come all the same."""

    def began(self) -> None:
        """A task is run."""
        self._runs += 1

    def failed(self, event: Event) -> None:
        """A task failed on `event` here."""
        self._failed.put(event.event_id, None)

    def failed_here(self, event: Event) -> bool:
        """Whether a task failed on it here."""
        return event.event_id in self._failed.entries

    def settled(self, event: Event, *, newer: float, acked: bool) -> None:
        """What had to be published for `event` is safe; not `acked` is what the broker certainly had taken back before.

        A copy of it with `newer` failures, or more, is another matter.
        """
        if event.id_source is not IdSource.HASH:
            self._settled.put(event.event_id, newer)
        elif not acked:
            self._lost.put(event.event_id, self._lost.entries.get(event.event_id, 0) + 1)

    def is_settled(self, event: Event) -> bool:
        """Whether `event`, which the broker delivered again, was settled here already."""
        if event.id_source is not IdSource.HASH:
            return event.failures < self._settled.entries.get(event.event_id, 0)
        return event.event_id in self._lost.entries

    def acked_again(self, event: Event) -> None:
        """The redelivery of a settled event was acked."""
        if event.id_source is IdSource.HASH and (count := self._lost.entries.pop(event.event_id, 0)) > 1:
            self._lost.put(event.event_id, count - 1)

    def may_pass_on(self, event: Event) -> bool:
        """Whether to put `event` at the end of its queue, so that what is behind it comes; noted if so.

        Not twice without a run in between: pilots would turn a queue in which nothing else is for ever.
        """
        if self._passed_on.entries.get(event.event_id) == self._runs:
            return False
        self._passed_on.put(event.event_id, self._runs)
        return True
