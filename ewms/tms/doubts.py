"""Calls that were given up, and may be acted upon yet: which taskforces have to be told of once more, and when (pure).

A call without an answer may lie in a proxy, or in the socket of a WMS that stands still, and arrive after a newer one:
then the WMS shows what it says, and would until the next change. For how long that may be, nobody says; after the
settle time (`TMS_SETTLE_TIME`) it counts as over.
"""

from collections.abc import Iterable

import attrs


@attrs.define
class Doubts:
    """The taskforces of such calls; memory follows what was given up within the settle time."""

    _given_up: dict[str, float] = attrs.field(factory=dict)

    def __contains__(self, uuid: object) -> bool:
        """Whether what the WMS took of this taskforce may be overwritten yet."""
        return uuid in self._given_up

    def add(self, uuids: Iterable[str], now: float) -> None:
        """A call about these was given up at this moment (s, of the clock that `settled` is asked with)."""
        self._given_up.update(dict.fromkeys(uuids, now))

    def settled(self, now: float, settle_time: float) -> list[str]:
        """Those whose last such call lies so many s back, and that are in doubt no longer: tell of them once more."""
        settled = [uuid for uuid, moment in self._given_up.items() if now - moment >= settle_time]
        for uuid in settled:
            del self._given_up[uuid]
        return settled
