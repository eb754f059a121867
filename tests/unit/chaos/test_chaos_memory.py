"""Who lives long is looked at, in parts of its life; growth of megabytes is wrong."""

from collections.abc import Callable

import pytest

from tests.chaos.memory import SPANS, Life, Sample, judge, lives, parse, row


def samples(pid: int, begin: float, end: float, memory: Callable[[float], float], role: str = "TMS") -> list[Sample]:
    return [Sample(at, role, pid, memory(at), 20) for at in range(int(begin), int(end) + 1, 5)]


def test_the_longest_lives_of_a_role_are_told() -> None:
    short = samples(1, 0, 300, lambda at: 500.0)
    old = samples(2, 300, 2400, lambda at: 50.0)
    (life,) = lives([*short, *old])
    assert life == Life("TMS", 1, 35.0, (50.0,) * SPANS, (20,) * SPANS)
    assert judge([life]) == []


def test_those_that_live_about_as_long_count_together() -> None:
    (life,) = lives([*samples(1, 0, 2400, lambda at: 40.0), *samples(2, 60, 2400, lambda at: 40.0)])
    assert (life.processes, life.minutes) == (2, 40.0)


def test_a_role_is_told_by_itself() -> None:
    found = lives([*samples(1, 0, 600, lambda at: 40.0), *samples(2, 0, 600, lambda at: 30.0, "pilots")])
    assert [life.role for life in found] == ["TMS", "pilots"]


@pytest.mark.parametrize(("until", "is_wrong"), [(2400, True), (600, False)], ids=["long", "too-short-to-tell"])
def test_who_grows_over_a_long_time_is_wrong(until: float, is_wrong: bool) -> None:
    (life,) = lives(samples(1, 0, until, lambda at: 40.0 + at / 60))
    assert bool(judge([life])) is is_wrong


@pytest.mark.parametrize(
    ("files", "minutes", "is_wrong"),
    [
        ((20, 20, 22, 24, 26, 28, 30, 32), 40.0, True),
        ((20, 20, 22, 24, 26, 28, 30, 32), 10.0, False),
        ((20, 22, 20, 21, 20, 22, 24, 23), 40.0, False),
        ((20, 20, 60, 20, 20, 20, 21, 60), 40.0, False),
    ],
    ids=["leak", "too-short-to-tell", "a-few", "a-moment"],
)
def test_who_opens_more_and_more_is_wrong(files: tuple[int, ...], minutes: float, is_wrong: bool) -> None:
    assert bool(judge([Life("TMS", 1, minutes, (50.0,) * SPANS, files)])) is is_wrong


def test_who_was_seen_once_has_no_growth() -> None:
    (life,) = lives([Sample(5.0, "pilots", 7, 31.0, 12)])
    assert (life.memory, life.files, life.grown) == ((31.0,), (12,), 0.0)


def test_growth_stands_in_the_row() -> None:
    life = Life("TMS", 1, 40.0, (50.0, 50.0, 51.0, 51.0, 51.0, 51.0, 52.0, 52.0), (20,) * 8)
    assert row(life) == ("TMS", "1", "40", "50.0 50.0 51.0 51.0 51.0 51.0 52.0 52.0", "+2.0", "20 20 20 20 20 20 20 20")


def test_a_life_can_be_read_again() -> None:
    life = Life("TMS", 1, 40.0, (50.0,), (20,))
    value = {"role": "TMS", "processes": 1, "minutes": 40.0, "memory": [50.0], "files": [20]}
    assert parse(value) == life
