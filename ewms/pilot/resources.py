"""What tasks used: distributions in constant memory, and three ways to tell them; pure."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import attrs

_STEPS: Final = 8
"""Buckets for each doubling: quantiles are exact to 9 %."""
_SMALLEST: Final = 1e-3
_BAR: Final = 40
_ROWS: Final = 16
_MB: Final = 1e6


@attrs.define
class Distribution:
    """Numbers ≥ 0, counted in logarithmic buckets: some hundred of them for all that fits in 64 bits."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    _buckets: Counter[int] = attrs.field(factory=Counter)

    def add(self, value: float) -> None:
        """Count one number."""
        self.count += 1
        self.total += value
        self.largest = max(self.largest, value)
        self._buckets[math.ceil(_STEPS * math.log2(max(value, _SMALLEST)))] += 1

    def quantile(self, share: float) -> float:
        """The number that `share` of them do not exceed, at most 9 % too large; 0 when there is none."""
        seen, wanted = 0, share * self.count
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(self.largest, 2 ** (bucket / _STEPS))
        return self.largest

    def as_dict(self) -> dict[str, float]:
        """The numbers that tell it."""
        mean = self.total / self.count if self.count else 0.0
        quantiles = {f"p{round(100 * share)}": self.quantile(share) for share in (0.1, 0.5, 0.9, 0.99)}
        values = {"mean": mean, **quantiles, "max": self.largest}
        return {"count": self.count, **{name: _rounded(value) for name, value in values.items()}}

    def rows(self) -> list[str]:
        """A histogram, a row for each doubling (or more, if there are many), `up to X │█████ N`."""
        if not self.count:
            return []
        doublings = Counter[int]()
        for bucket, count in self._buckets.items():
            doublings[math.ceil(bucket / _STEPS)] += count
        first, last = min(doublings), max(doublings)
        width = math.ceil((last - first + 1) / _ROWS)
        merged = Counter[int]()
        for doubling, count in doublings.items():
            merged[first + (doubling - first) // width * width + width - 1] += count
        most = max(merged.values())
        bounds = range(first + width - 1, last + width, width)
        return [
            f"≤ {_rounded(2.0**bound):>10g} │{'█' * math.ceil(_BAR * merged[bound] / most)} {merged[bound]}"
            for bound in bounds
        ]


@attrs.frozen(kw_only=True)
class Used:
    """What one task used; None where it is not known."""

    wall_s: float
    cpu_s: float | None = None
    memory_mb: float | None = None
    """The most at any time."""
    scratch_mb: float | None = None
    """In /tmp and HOME when it ended, and its outfile."""

    def as_dict(self) -> dict[str, float]:
        """What is known, rounded."""
        return {name: _rounded(value) for name, value in attrs.asdict(self).items() if value is not None}


@attrs.frozen
class Resources:
    """What all the tasks of a pilot used."""

    of: Mapping[str, Distribution] = attrs.field(
        factory=lambda: {field.name: Distribution() for field in attrs.fields(Used)}
    )

    def add(self, used: Used) -> None:
        """Count one task."""
        for name, value in attrs.asdict(used).items():
            if value is not None:
                self.of[name].add(value)

    def as_json(self, **more: Any) -> str:
        """For programs."""
        return json.dumps({**more, **{name: each.as_dict() for name, each in self.of.items()}}, indent=1)

    def line(self) -> str:
        """On one short line; "" if no task ended."""
        return "; ".join(
            f"{name} p50 {_rounded(each.quantile(0.5)):g} p90 {_rounded(each.quantile(0.9)):g} "
            f"max {_rounded(each.largest):g}"
            for name, each in self.of.items()
            if each.count
        )

    def table(self) -> str:
        """For people: a histogram of the wall times, and the quantiles of everything."""
        if not self.of["wall_s"].count:
            return ""
        parts = [f"wall time of {self.of['wall_s'].count} tasks in s", *self.of["wall_s"].rows()]
        parts += [f"{name:>10}: {_in_words(each.as_dict())}" for name, each in self.of.items() if each.count]
        return "\n".join(parts)


def megabytes(size: int) -> float:
    """Bytes in MB."""
    return size / _MB


def _in_words(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in values.items())


def _rounded(value: float) -> float:
    """To three digits, whatever its size."""
    return float(f"{value:.3g}") if value < 1000 else round(value)
