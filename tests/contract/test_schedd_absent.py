"""A real schedd that is silent, gone, or back again: no call hangs, and each is told from a refusal."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest
import trio

from ewms.tms.condor.base import CondorRefused, CondorUnreachable, Schedd
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

BACK_WITHIN = 60
EXTRA_CONFIG = "/etc/condor/config.d/99-test"


@pytest.fixture
async def schedd(pool: "Pool") -> AsyncIterator[Schedd]:
    async with open_schedd(pool.command([pool.python, "-m", "ewms.tms.condor.helper"]), call_timeout=5) as schedd:
        await schedd.query("false", ["ClusterId"])  # a session with the schedd, which will be stale
        yield schedd


async def until_back(schedd: Schedd) -> None:
    with trio.fail_after(BACK_WITHIN):
        while True:
            try:
                await schedd.query("false", ["ClusterId"])
            except CondorUnreachable:
                await trio.sleep(0.5)
            else:
                return


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("HISTORY_HELPER_MAX_CONCURRENCY = 0", "has been disabled on this schedd"),
        ("HISTORY =", "HISTORY undefined"),
        ("HISTORY_HELPER = /nonexistent", "Failed to launch history helper"),
    ],
)
async def test_a_history_that_the_schedd_does_not_give_is_a_refusal_in_its_own_words(
    pool: "Pool", schedd: Schedd, line: str, words: str
) -> None:
    async def outcome() -> str:
        try:
            return str(await schedd.history("true", ["ClusterId"], match=1))
        except CondorRefused as refusal:
            return str(refusal)

    async def until(expected: Callable[[str], bool]) -> None:
        with trio.fail_after(BACK_WITHIN):
            while not expected(await outcome()):  # noqa: ASYNC110  the schedd tells nobody when it has reread
                await trio.sleep(0.5)

    await pool.run(["sh", "-c", f"echo '{line}' > {EXTRA_CONFIG} && condor_reconfig -schedd"], user="root")
    try:
        await until(lambda seen: words in seen)
        assert await schedd.query("false", ["ClusterId"]) == []
    finally:
        with trio.move_on_after(30, shield=True):
            await pool.run(["sh", "-c", f"rm {EXTRA_CONFIG} && condor_reconfig -schedd"], user="root")
    await until(lambda seen: seen.startswith("["))


async def test_a_silent_schedd_costs_no_call_more_than_its_deadline(pool: "Pool", schedd: Schedd) -> None:
    await pool.run(["pkill", "-STOP", "-x", "condor_schedd"], user="root")
    try:
        with trio.move_on_after(1) as scope:
            await schedd.query("true", ["ClusterId"])
        assert scope.cancelled_caught
        started = trio.current_time()
        with pytest.raises(CondorUnreachable, match="no answer to query within 5 s"):
            await schedd.query("true", ["ClusterId"])
        assert trio.current_time() - started < 10
    finally:
        with trio.move_on_after(30, shield=True):
            await pool.run(["pkill", "-CONT", "-x", "condor_schedd"], user="root")
    await until_back(schedd)


async def test_a_schedd_that_died_is_unreachable_until_it_is_back(pool: "Pool", schedd: Schedd) -> None:
    await pool.run(["pkill", "-KILL", "-x", "condor_schedd"], user="root")
    calls = (
        schedd.query("true", ["ClusterId"]),
        schedd.history("true", ["ClusterId"], match=1),
        schedd.act("hold", "ClusterId == 0", reason="nobody is there"),
        schedd.submit({"executable": "/bin/true", "universe": "vanilla", "transfer_executable": "false"}, count=1),
    )
    for call in calls:
        with pytest.raises(CondorUnreachable):
            await call
    await until_back(schedd)
    acted = await schedd.act("hold", "ClusterId == 0", reason="nothing to hold")
    assert (acted.succeeded, acted.failed) == (0, 0)
