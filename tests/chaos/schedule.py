"""What is done to the system, and when: timed faults that a seed makes and that can be played again (pure)."""

import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import attrs

_QUIET_S: Final = 2.0
"""Before the first fault."""


@attrs.frozen
class Timed:
    """One fault of a schedule."""

    at: float
    """s after the begin."""
    kind: str
    lasts: float
    """s until it is undone; 0 where there is nothing to undo."""
    draw: int
    """What it chooses by, where there is a choice: a pilot, a taskforce, a lie."""


@attrs.frozen
class Spell:
    """A kind of fault, as the schedule needs to know it."""

    kind: str
    lasts: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest, in s."""


def plan(seed: int, seconds: float, every: float, spells: Sequence[Spell]) -> tuple[Timed, ...]:
    """Faults for so many seconds, one each `every` s on average: all kinds in a random order, then all again."""
    chance = random.Random(seed)
    faults, at = [], _QUIET_S
    for spell in _dealt(spells, chance):
        if at >= seconds:
            break
        lasts, draw = chance.uniform(*spell.lasts), chance.randrange(1 << 16)
        faults.append(Timed(round(at, 2), spell.kind, round(lasts, 2), draw))
        at += min(chance.expovariate(1 / every), 3 * every)
    return tuple(faults)


def _dealt(spells: Sequence[Spell], chance: random.Random) -> Iterator[Spell]:
    while spells:
        yield from chance.sample(spells, len(spells))


def dump(faults: Iterable[Timed]) -> str:
    """A schedule as text: one fault a line."""
    return "".join(json.dumps(attrs.asdict(fault)) + "\n" for fault in faults)


def parse(text: str) -> tuple[Timed, ...]:
    """The schedule of that text.

    Raises:
        ValueError: it is none; with the line.
    """
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            faults.append(Timed(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no fault: {error}") from error
    return tuple(faults)


def closed_up(faults: Sequence[Timed], longest_gap: float) -> tuple[Timed, ...]:
    """The same faults in the same order, without long waits between them: where others were taken out."""
    closed: list[Timed] = []
    before, at = 0.0, 0.0
    for fault in faults:
        at += min(fault.at - before, longest_gap)
        before = fault.at
        closed.append(attrs.evolve(fault, at=round(at, 2)))
    return tuple(closed)


T = TypeVar("T")


async def shrunk(items: Sequence[T], fails: Callable[[Sequence[T]], Awaitable[bool]], reruns: int) -> Sequence[T]:
    """The shortest part of `items` that was found to fail still, with so many calls of `fails` at most.

    Delta debugging (Zeller's ddmin): halves, then quarters, …; first each piece alone, then all but that piece.
    """
    pieces = 2
    while len(items) > 1:
        for part in _parts(items, pieces):
            if reruns == 0:
                return items
            reruns -= 1
            if await fails(part):
                items, pieces = part, max(2, min(pieces - 1, len(part)))
                break
        else:
            if pieces >= len(items):
                return items
            pieces = min(2 * pieces, len(items))
    return items


def _parts(items: Sequence[T], pieces: int) -> Iterator[Sequence[T]]:
    edges = [len(items) * number // pieces for number in range(pieces + 1)]
    spans = list(itertools.pairwise(edges))
    yield from (items[begin:end] for begin, end in spans)
    if pieces > 2:  # of two pieces each is all but the other
        yield from ([*items[:begin], *items[end:]] for begin, end in spans)
