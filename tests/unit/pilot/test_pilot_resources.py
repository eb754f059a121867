"""What tasks used: quantiles and histograms in constant memory."""

import json
import random

import pytest

from ewms.contract import MAX_CHIRP_BYTES
from ewms.pilot.resources import Distribution, Resources, Used


def distribution(*values: float) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99, 1])
def test_quantiles_are_at_most_nine_percent_too_large(share: float) -> None:
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(2, 2) for _ in range(2000))
    exact = values[max(0, round(share * len(values)) - 1)]
    assert exact <= distribution(*values).quantile(share) <= 1.1 * exact


def test_an_empty_one() -> None:
    assert (distribution().quantile(0.5), distribution().rows()) == (0, [])
    assert (Resources().line(), Resources().table()) == ("", "")


def test_zero_and_the_very_large() -> None:
    both = distribution(0, 1e12)
    assert both.quantile(1) == 1e12
    assert both.quantile(0.5) == pytest.approx(1e-3, rel=0.1)
    assert len(both.rows()) <= 17


def test_the_rows_count_every_value_once() -> None:
    rows = distribution(*(0.3 * 1.2**n for n in range(60))).rows()
    assert sum(int(row.split()[-1]) for row in rows) == 60
    assert len(rows) <= 17


def test_memory_is_bounded_by_the_range_of_the_values() -> None:
    chance = random.Random(2)
    many = distribution(*(chance.uniform(0, 1e9) for _ in range(20_000)))
    assert len(many._buckets) < 400


def test_the_three_ways_to_tell_it() -> None:
    resources = Resources()
    for n in range(1, 101):
        resources.add(Used(wall_s=n, cpu_s=n / 2, memory_mb=100))
    assert [part.split()[0] for part in resources.line().split("; ")] == ["wall_s", "cpu_s", "memory_mb"]
    assert resources.line().endswith("memory_mb p50 100 p90 100 max 100")
    assert len(resources.line()) < MAX_CHIRP_BYTES // 2
    told = json.loads(resources.as_json(pilot="me"))
    assert told["pilot"] == "me"
    assert told["wall_s"] | {"p10": 0, "p50": 0, "p90": 0, "p99": 0} == {
        "count": 100, "mean": 50.5, "p10": 0, "p50": 0, "p90": 0, "p99": 0, "max": 100,
    }  # fmt: skip
    assert told["scratch_mb"]["count"] == 0
    assert resources.table().startswith("wall time of 100 tasks in s\n≤ ")
