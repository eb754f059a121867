"""A schedule follows from its seed, survives being printed, and is made shorter until nothing can be left out."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.__main__ import again, reruns
from tests.chaos.schedule import Spell, Timed, closed_up, dump, parse, plan, shrunk

SPELLS = [Spell("kill"), Spell("hold", (3.0, 8.0)), Spell("full", (1.0, 2.0))]


def test_a_seed_gives_the_same_schedule_each_time_and_another_one_another() -> None:
    assert plan(7, 240, 5, SPELLS) == plan(7, 240, 5, SPELLS)
    assert plan(7, 240, 5, SPELLS) != plan(8, 240, 5, SPELLS)


@given(st.integers(0, 1 << 16), st.floats(1, 600), st.floats(0.5, 20))
def test_faults_are_in_order_within_the_time_and_last_as_long_as_their_kind(
    seed: int, seconds: float, every: float
) -> None:
    faults = plan(seed, seconds, every, SPELLS)
    lasts = {spell.kind: spell.lasts for spell in SPELLS}
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    for fault in faults:
        assert fault.at <= seconds + 0.01
        shortest, longest = lasts[fault.kind]
        assert shortest - 0.01 <= fault.lasts <= longest + 0.01


def test_every_kind_comes_before_any_comes_again() -> None:
    kinds = [fault.kind for fault in plan(3, 600, 5, SPELLS)]
    assert len(kinds) > 60
    assert all({*kinds[start : start + 3]} == {"kill", "hold", "full"} for start in range(0, len(kinds) - 3, 3))


def test_nothing_to_do_is_an_empty_schedule() -> None:
    assert plan(1, 60, 5, []) == ()


def test_what_is_printed_can_be_played_again() -> None:
    faults = plan(1, 60, 5, SPELLS)
    assert parse(dump(faults)) == faults


@pytest.mark.parametrize("text", ["{", '{"at": 1}', "[]", '{"at": 1, "kind": "x", "lasts": 0, "draw": 0, "more": 1}'])
def test_what_is_no_schedule_is_refused_with_its_line(text: str) -> None:
    good = dump([Timed(1, "kill", 0, 0)])
    with pytest.raises(ValueError, match="line 2 is no fault"):
        parse(good + text)


def test_waits_where_faults_were_taken_out_are_shortened() -> None:
    faults = [Timed(2, "a", 0, 0), Timed(3, "b", 9, 1), Timed(100, "c", 0, 2)]
    assert [fault.at for fault in closed_up(faults, 5)] == [2, 3, 8]
    assert [fault.kind for fault in closed_up(faults, 5)] == ["a", "b", "c"]


async def smallest(items: Sequence[int], guilty: set[int], reruns: int = 1000) -> tuple[Sequence[int], int]:
    calls = 0

    async def fails(part: Sequence[int]) -> bool:
        nonlocal calls
        calls += 1
        assert 0 < len(part) < len(items)
        return guilty <= {*part}

    return await shrunk(items, fails, reruns), calls


@given(st.integers(2, 40), st.data())
def test_exactly_the_guilty_ones_are_left(count: int, data: st.DataObject) -> None:
    import trio

    guilty = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=4))
    found, _ = trio.run(smallest, range(count), guilty)
    assert list(found) == sorted(guilty)


async def test_it_stops_after_so_many_reruns_with_the_best_so_far() -> None:
    found, calls = await smallest(range(64), {3, 60}, reruns=6)
    assert calls == 6
    assert {3, 60} <= {*found}


async def test_what_never_fails_again_stays_whole() -> None:
    found, _ = await smallest(range(8), {99})
    assert list(found) == list(range(8))


@pytest.mark.parametrize(("minutes", "expected"), [(0.5, 4), (4, 2), (40, 0)])
def test_after_a_failure_as_many_shorter_ones_are_tried_as_the_time_is_enough_for(
    minutes: float, expected: int
) -> None:
    assert reruns(minutes) == expected


def test_the_command_for_the_same_run_has_all_options_and_the_seed_that_came_by_chance() -> None:
    words = ["--ground", "embedded", "--minutes", "0.5", "--only", "pilot-kill"]
    assert again([*words, "--seed", "7"], None) == f"nox -s chaos -- {' '.join(words)} --seed 7"
    assert again(words, 9) == f"nox -s chaos -- {' '.join(words)} --seed 9"
    assert again(["--replay", "a schedule.jsonl"], None) == "nox -s chaos -- --replay 'a schedule.jsonl'"
