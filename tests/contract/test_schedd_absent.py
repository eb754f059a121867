"""A real schedd that is silent, gone, or back again: no call hangs, and each is told from a refusal."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import trio

from ewms.tms.condor.base import CondorUnreachable, Schedd
from ewms.tms.condor.schedd import open_schedd

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

BACK_WITHIN = 60


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
