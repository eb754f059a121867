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
FIRST_HOLD_S: Final = 30.0
LONGEST_HOLD_S: Final = 300.0
_MAX_DOUBLINGS: Final = 10

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


@attrs.frozen
class _PassedOn:
    """How often an event was passed on since a task was run, when last, and how many had been run by then."""

    runs: int
    times: int
    at: float


@attrs.define
class Memory:
    """What became of events here."""

    _runs: int = 0
    _failed: _Newest[None] = attrs.field(factory=_Newest)
    _passed_on: _Newest[_PassedOn] = attrs.field(factory=_Newest)
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

    def comes_round_again(self, event: Event) -> bool:
        """Whether it was put at the end of its queue here and no task was run since, as far as we can remember."""
        return self._passed_on_since_a_run(event) is not None or self._so_many_came_that_some_are_forgotten()

    def _so_many_came_that_some_are_forgotten(self) -> bool:
        all_of_them = self._passed_on.entries.values()
        return len(all_of_them) >= MAX_REMEMBERED and next(iter(all_of_them)).runs == self._runs

    def hold_s(self, event: Event, *, now: float) -> float:
        """How long (s) to hold `event` before it is put at the end of its queue, so that what is behind it comes.

        Not at all after a run; else longer each time: pilots would turn a queue in which nothing else is for ever.
        """
        last = self._passed_on_since_a_run(event)
        if last is None:
            return 0.0
        hold = min(FIRST_HOLD_S * 2.0 ** min(last.times - 1, _MAX_DOUBLINGS), LONGEST_HOLD_S)
        return max(0.0, last.at + hold - now)

    def passes_on(self, event: Event, *, now: float) -> None:
        """`event` is put at the end of its queue, or should have been."""
        last = self._passed_on_since_a_run(event)
        self._passed_on.put(event.event_id, _PassedOn(self._runs, last.times + 1 if last else 1, now))

    def _passed_on_since_a_run(self, event: Event) -> _PassedOn | None:
        last = self._passed_on.entries.get(event.event_id)
        return last if last is not None and last.runs == self._runs else None
