from functools import partial

import trio
from trio.testing import MockClock

from ewms.liveness import Pulse, beat_here, part, rest, resting


async def test_who_is_silent_for_longer_than_allowed_is_stuck(autojump_clock: MockClock) -> None:
    pulse = Pulse(100)
    with pulse.child("orders"):
        await trio.sleep(60)
        with pulse.child("report"):
            await trio.sleep(50)
            assert pulse.names() == {"orders", "report"}
            assert pulse.stuck() == {"orders": 110}
            await trio.sleep(60)
            assert pulse.stuck() == {"orders": 170, "report": 110}
            beat_here()
            assert pulse.stuck() == {"orders": 170}
        assert pulse.names() == {"orders"}
    assert pulse.stuck() == {}


async def test_what_is_waited_for_on_purpose_is_no_silence(autojump_clock: MockClock) -> None:
    pulse = Pulse(100)
    found: list[dict[str, float]] = []

    async def look() -> None:
        while True:
            await trio.sleep(50)
            found.append(dict(pulse.stuck()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        with pulse.child("housekeeping"):
            await rest(3600)
            with resting():
                await rest(50)
                await trio.sleep(3600)
            assert not any(found)
            await trio.sleep(99)
            assert not any(found)  # it is counted anew
            await trio.sleep(60)
            assert found[-1] == {"housekeeping": 150}
        nursery.cancel_scope.cancel()


async def test_only_the_first_task_of_a_child_rests(autojump_clock: MockClock) -> None:
    pulse = Pulse(100)
    with pulse.child("report"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest, 1000)  # the end of a taskforce, say, that waits for its stop
            await trio.sleep(200)
            assert pulse.stuck() == {"report": 200}
            nursery.cancel_scope.cancel()


async def test_what_many_children_use_beats_for_its_caller(autojump_clock: MockClock) -> None:
    pulse = Pulse(5)
    beat_here()  # outside of any child: nothing
    await rest(1)

    async def child(name: str, *, calls: bool) -> None:
        with pulse.child(name):
            async with trio.open_nursery() as nursery:
                if calls:
                    nursery.start_soon(call_the_wms)  # a task of a child is the child's
                await trio.sleep(20)
                nursery.cancel_scope.cancel()

    async def call_the_wms() -> None:
        while True:
            beat_here()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(child, "orders", calls=True))
        nursery.start_soon(partial(child, "report", calls=False))
        await trio.sleep(10)
        assert pulse.stuck() == {"report": 10}


async def test_one_of_many_is_seen_though_the_others_are_well(autojump_clock: MockClock) -> None:
    pulse = Pulse(5)

    async def read(name: str, *, hangs: bool) -> None:
        with part(name):
            while True:
                if hangs:
                    await trio.sleep_forever()
                await rest(1)

    with part("nobody's"):  # outside of any child: nothing
        assert not pulse.names()
    with pulse.child("watch"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(read, "a.log", hangs=False))
            nursery.start_soon(partial(read, "b.log", hangs=True))
            nursery.start_soon(partial(read, "a.log", hangs=False))  # the former one may not have ended yet
            for _ in range(10):
                beat_here()
                await trio.sleep(1)
            assert pulse.names() == {"watch", "watch a.log", "watch b.log"}
            assert pulse.stuck() == {"watch b.log": 10}
            nursery.cancel_scope.cancel()
