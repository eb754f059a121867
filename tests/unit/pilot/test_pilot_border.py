"""The border to asyncio: callbacks that are ready run together, and yet Trio's own tasks are not starved."""

import asyncio
import sys

import pytest
import trio

if sys.version_info >= (3, 14):
    pytest.skip("trio-asyncio does not import there", allow_module_level=True)

from ewms.pilot.brokers._asyncio import open_border

STEPS = 50


async def test_callbacks_that_are_ready_share_a_turn() -> None:
    """A turn each would be a look at every socket each."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def many_steps() -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)

    async with open_border() as border, trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await border.call(many_steps)
        nursery.cancel_scope.cancel()
    assert turns < STEPS // 2


async def test_callbacks_without_end_leave_turns_to_others() -> None:
    stop = False

    async def spin() -> None:
        while not stop:  # noqa: ASYNC110  asyncio.Event would need a loop of its own
            await asyncio.sleep(0)

    async with open_border() as border:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(border.call, spin)
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                stop = True


async def test_timers_are_kept() -> None:
    async with open_border() as border:
        with trio.fail_after(30):
            await border.call(lambda: asyncio.sleep(0.05))


async def test_an_error_comes_out_unchanged() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    async with open_border() as border:
        with pytest.raises(KeyError):
            await border.call(fail)
