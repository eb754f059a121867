"""Repeating a call: which errors, how long between, and when it is given up."""

import pytest
import trio
from trio.testing import MockClock

from ewms.wms.errors import WMSNotFound, WMSUnavailable
from ewms.wms.retry import Retry, until_answered


class Flaky:
    """An attempt that fails so many times before it answers."""

    def __init__(self, failures: float, retry_after: float | None = None) -> None:
        self.failures = failures
        self.retry_after = retry_after
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(trio.current_time())
        if len(self.times) <= self.failures:
            raise WMSUnavailable("away", retry_after=self.retry_after)
        return "answer"

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


async def test_waits_double_up_to_the_cap_with_jitter(autojump_clock: MockClock) -> None:
    attempt = Flaky(failures=8)
    assert await until_answered("GET /x", attempt, Retry(first=1, cap=10)) == "answer"
    for wait, longest in zip(attempt.waits, (1, 2, 4, 8, 10, 10, 10, 10), strict=True):
        assert longest / 2 <= wait <= longest


async def test_it_goes_on_for_as_long_as_the_scope_lives(autojump_clock: MockClock) -> None:
    attempt = Flaky(failures=float("inf"))
    with trio.move_on_after(24 * 3600):
        await until_answered("GET /x", attempt, Retry())
    assert len(attempt.times) > 24 * 60


async def test_a_limited_number_of_attempts_raises_the_last_error(autojump_clock: MockClock) -> None:
    attempt = Flaky(failures=5)
    with pytest.raises(WMSUnavailable, match="away"):
        await until_answered("GET /x", attempt, Retry(attempts=3))
    assert len(attempt.times) == 3


@pytest.mark.parametrize(("asked", "waited"), [(30.0, 30.0), (10.0**9, 600.0)])
async def test_retry_after_is_honoured_up_to_a_limit(autojump_clock: MockClock, asked: float, waited: float) -> None:
    attempt = Flaky(failures=1, retry_after=asked)
    await until_answered("GET /x", attempt, Retry())
    assert attempt.waits == [waited]


async def test_what_is_not_transient_is_raised_at_once() -> None:
    async def attempt() -> None:
        raise WMSNotFound("no such taskforce")

    with pytest.raises(WMSNotFound):
        await until_answered("GET /x", attempt, Retry())
