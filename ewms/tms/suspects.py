"""Which sites and hosts fail much more often than the others, and whether to keep away from them for a time (pure).

A workflow whose every task fails makes no site suspicious: what counts is how a place differs from the rest. And a
suspicion never closes the pool: a floor bounds how much of it may be excluded.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import attrs

from ewms.tms.sites import QUICK, UNKNOWN_SITE, Count

Kind = Literal["site", "host"]

_Z: Final = 2.58
"""A suspicion errs in one of 200 cases (one-sided 99.5 %)."""


@attrs.frozen(kw_only=True)
class Rules:
    """When a place is suspicious, and how far its exclusion may go."""

    min_runs: int = 10
    """With fewer runs, of the place or of all others together, nothing is said."""
    min_share: float = 0.3
    """The share of its runs that fails, at least."""
    ratio: float = 3.0
    """How many times as often as elsewhere, at least."""
    exclude_for: float = 24 * 3600.0
    """How long, in s, an exclusion lasts: as long as is looked back, so that what follows is judged by news only."""
    max_excluded: float = 0.2
    """The share of the pool (of its busy time) that may be excluded at once."""


@attrs.frozen
class Suspect:
    """A place that fails much more often than the rest."""

    kind: Kind
    name: str
    count: Count
    elsewhere: float
    """The share of runs that fail in the better half of the pool."""

    @property
    def place(self) -> str:
        """Its name with its kind."""
        return f"{self.kind} {self.name}"

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.name}: {self.count.failures} of {self.count.runs} runs failed,"
            f" {self.count.quick} of them within {QUICK} s; elsewhere {self.elsewhere:.0%} fail"
        )


@attrs.frozen
class Exclusion:
    """A place that no new worker goes to for a time (epoch s)."""

    kind: Kind
    name: str
    until: float
    reason: str
    share: float = 0.0
    """Its share of the pool when it was excluded: what no worker goes to any more soon looks small."""

    @property
    def place(self) -> str:
        """Its name with its kind."""
        return f"{self.kind} {self.name}"


@attrs.frozen
class Decision:
    """What to exclude from now on, and what changed."""

    excluded: tuple[Exclusion, ...]
    added: tuple[Exclusion, ...] = ()
    lapsed: tuple[Exclusion, ...] = ()
    refused: tuple[Suspect, ...] = ()
    """Suspicious, but then too much of the pool would be excluded."""


def suspicious(kind: Kind, counts: Mapping[str, Count], rules: Rules) -> list[Suspect]:
    """The suspicious ones, the worst first."""
    usual, names = _usual(counts)
    if usual.runs < rules.min_runs:
        return []
    elsewhere = usual.failures / usual.runs
    threshold = max(rules.min_share, rules.ratio * elsewhere)
    found = [
        Suspect(kind, name, count, elsewhere)
        for name, count in counts.items()
        if name not in names and name != UNKNOWN_SITE
        if count.runs >= rules.min_runs and _at_least(count) >= threshold
    ]
    return sorted(found, key=lambda each: (-_at_least(each.count), each.name))


def _usual(counts: Mapping[str, Count]) -> tuple[Count, set[str]]:
    """The better half of the pool, by its work: what a place is compared with, however many others are bad too."""
    half = sum(_worth(count) for count in counts.values()) / 2
    usual, names = Count(), set[str]()
    for name, count in sorted(counts.items(), key=lambda item: (item[1].failures / max(1, item[1].runs), item[0])):
        if _worth(usual) >= half:
            break
        usual.add(count)
        names.add(name)
    return usual, names


def _worth(count: Count) -> int:
    """Busy time: a machine that kills all that it gets has many runs, and does little."""
    return count.busy + count.runs


def all_suspects(
    sites: Mapping[str, Count], hosts: Mapping[str, Count], site_of: Mapping[str, str], rules: Rules
) -> list[Suspect]:
    """Suspicious sites, and suspicious hosts at other sites."""
    bad_sites = suspicious("site", sites, rules)
    names = {suspect.name for suspect in bad_sites}
    elsewhere = {host: count for host, count in hosts.items() if site_of.get(host) not in names}
    return bad_sites + suspicious("host", elsewhere, rules)


def decide(
    current: Sequence[Exclusion],
    suspects: Iterable[Suspect],
    pool: Mapping[Kind, Mapping[str, Count]],
    now: float,
    rules: Rules,
) -> Decision:
    """Let exclusions lapse, add the suspects as far as the floor allows, the worst first."""
    kept = [each for each in current if each.until > now]
    lapsed = [each for each in current if each.until <= now]
    total = sum(_worth(count) for count in pool.get("site", {}).values())
    added, refused = [], []
    for suspect in suspects:
        if any((each.kind, each.name) == (suspect.kind, suspect.name) for each in kept):
            continue
        size = _size(pool, suspect.kind, suspect.name)
        taken = sum(max(_size(pool, each.kind, each.name), each.share * total) for each in kept)
        if size + taken > rules.max_excluded * total:
            refused.append(suspect)
            continue
        share = size / total if total else 0.0
        exclusion = Exclusion(suspect.kind, suspect.name, now + rules.exclude_for, str(suspect), share)
        kept.append(exclusion)
        added.append(exclusion)
    return Decision(tuple(kept), tuple(added), tuple(lapsed), tuple(refused))


def avoided(exclusions: Iterable[Exclusion]) -> list[tuple[str, str]]:
    """Machine attributes and the values that a new worker's machine must not have."""
    attributes: dict[Kind, tuple[str, ...]] = {"site": ("GLIDEIN_Site", "OSG_SITE_NAME"), "host": ("Machine",)}
    return [(attribute, each.name) for each in exclusions for attribute in attributes[each.kind]]


def _size(pool: Mapping[Kind, Mapping[str, Count]], kind: Kind, name: str) -> int:
    count = pool.get(kind, {}).get(name)
    return _worth(count) if count else 0


def _at_least(count: Count) -> float:
    """The share of failures that the numbers prove: the lower end of Wilson's interval."""
    n, share = count.runs, count.failures / count.runs
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, (share + _Z**2 / (2 * n) - spread) / (1 + _Z**2 / n))
