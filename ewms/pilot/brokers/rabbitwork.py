"""Which deliveries of a RabbitMQ channel have no verdict yet, and which of those the broker took back; pure.

RabbitMQ takes back a delivery that is too long in work (`consumer_timeout`). For the first one of a consumer it ends
the consumer; it never says which one that was, and takes back the others silently, each at the same age (RabbitMQ
4.3.6: to 0.02 s). So the oldest was taken back when the consumer ended, and each other one is when it is as old. The
oldest may be one whose verdict was just under way, and we hear of a delivery late when we are busy: within `MARGIN_S`
nothing is certain, and what is not certain counts as not taken back (an event may then be run twice, never not at all).
"""

from collections import deque
from collections.abc import Hashable
from typing import Final

import attrs

MARGIN_S: Final = 5.0


@attrs.frozen
class InWork:
    """The deliveries without a verdict; times are in s of any one clock."""

    _came_at: dict[Hashable, float] = attrs.field(factory=dict)
    _taken_back_at: dict[Hashable, float] = attrs.field(factory=dict)
    """When those whose consumer ended were, or will be, taken back."""
    _settled: deque[tuple[float, float]] = attrs.field(factory=lambda: deque(maxlen=100))
    """When the last verdicts were given, and when their deliveries had come."""

    def __contains__(self, tag: Hashable) -> bool:
        return tag in self._came_at

    def took(self, tag: Hashable, came_at: float) -> None:
        """A delivery came."""
        self._came_at[tag] = came_at

    def is_in_doubt(self, tag: Hashable) -> bool:
        """Whether it was taken back, or is only a matter of time."""
        return tag in self._taken_back_at

    def consumer_ended(self, now: float) -> None:
        """The broker ended the consumer of all that is not in doubt."""
        its_own = {tag: came_at for tag, came_at in self._came_at.items() if tag not in self._taken_back_at}
        just_settled = [came_at for at, came_at in self._settled if now - at < MARGIN_S]
        oldest = min([*its_own.values(), *just_settled], default=now)
        self._taken_back_at.update(
            {tag: now + (came_at - oldest) + (MARGIN_S if came_at > oldest else 0) for tag, came_at in its_own.items()}
        )

    def settle(self, tag: Hashable, now: float) -> bool:
        """Its verdict is given `now`; whether the broker certainly took it back before."""
        self._settled.append((now, self._came_at.pop(tag)))
        return tag in self._taken_back_at and now >= self._taken_back_at.pop(tag)

    def forget(self) -> None:
        """The channel is gone, and all with it."""
        self._came_at.clear()
        self._taken_back_at.clear()
        self._settled.clear()
