"""What a kind of fault is: how it is done and undone, on what ground, and what shows that the system is over it."""

import enum
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs

from tests.chaos.places import Place
from tests.chaos.schedule import Spell, Timed
from tests.chaos.system import System

Act = Callable[[System, Timed], AbstractAsyncContextManager[None]]
"""Entering does it, leaving undoes it. A run that is broken off need not: processes and mounts go with it."""


class Heals(enum.Enum):
    """What shows that the system is over a fault."""

    TMS = "tms"
    """A TMS asks the WMS for orders and is answered."""
    PILOTS = "pilots"
    """Every base job has all of its pilots."""
    FLOW = "flow"
    """Outputs come."""


class Needs(enum.Flag):
    """What a place must have for it."""

    NOTHING = 0
    RABBITMQ = enum.auto()
    MOUNTS = enum.auto()
    HTCONDOR = enum.auto()
    EMBEDDED = enum.auto()


@attrs.frozen
class Kind:
    """One row of the table."""

    name: str
    act: Act
    heals: Heals
    lasts: tuple[float, float] = (0.0, 0.0)
    needs: Needs = Needs.NOTHING
    alone: str = ""
    """What there can be only one fault of at a time."""
    ends_all: bool = False
    """It ends the TMS, its helpers, or any pilots at all: no soak, in which they are to become old."""

    @property
    def spell(self) -> Spell:
        """As the schedule knows it."""
        return Spell(self.name, self.lasts)


def has(place: Place) -> Needs:
    """What a place has."""
    found = Needs.NOTHING
    if place.broker is not None:
        found |= Needs.RABBITMQ
    if place.has_own_mounts:
        found |= Needs.MOUNTS
    return found | (Needs.HTCONDOR if place.has_htcondor else Needs.EMBEDDED)
