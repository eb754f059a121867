from hypothesis import given
from hypothesis import strategies as st

from ewms.tms.postponed import Postponed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_waits_longer_up_to_a_limit() -> None:
    clock = Clock()
    postponed = Postponed(10, 60, clock)
    waits = []
    for _ in range(5):
        assert postponed.wait("a") == 0
        waits.append(postponed.fail("a"))
        assert postponed.wait("a") == waits[-1]
        clock.now += waits[-1]
    assert waits == [10, 20, 40, 60, 60]
    assert postponed.fail("b") == 10  # each by itself


def test_a_success_clears_it() -> None:
    postponed = Postponed(10, 60, Clock())
    postponed.fail("a")
    postponed.succeed("a")
    postponed.succeed("never failed")
    assert postponed.wait("a") == 0
    assert postponed.fail("a") == 10


def test_a_day_of_failures_is_some_dozens() -> None:
    clock = Clock()
    postponed = Postponed(10, 3600, clock)
    tries = 0
    while clock.now < 1000 + 86400:
        tries += 1
        clock.now += postponed.fail("a")
    assert tries < 35


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1000)), max_size=100))
def test_what_nobody_asks_for_any_more_is_forgotten(failures: list[tuple[str, float]]) -> None:
    clock = Clock()
    postponed = Postponed(10, 60, clock)
    for name, pause in failures:
        clock.now += pause
        postponed.fail(name)
    clock.now += 1000
    postponed.fail("z")
    assert len(postponed._failures) == 1
