"""Keeping a connection: made anew with backoff, given up after the setting, and everybody who waits is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ewms.pilot.brokers.base import BrokerLost, BrokerRefused
from ewms.pilot.brokers.link import FIRST_WAIT, LONGEST_WAIT, Link, WireLost


@attrs.define
class FakeWire:
    number: int
    closed: trio.Event = attrs.field(factory=trio.Event)
    said_goodbye: bool = False

    async def lost(self) -> None:
        await self.closed.wait()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.said_goodbye = True


@attrs.define
class Broker:
    """Each attempt to connect takes the next answer; without one it succeeds."""

    answers: list[Exception] = attrs.field(factory=list)
    wires: list[FakeWire] = attrs.field(factory=list)
    attempts: list[float] = attrs.field(factory=list)

    async def connect(self) -> FakeWire:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        if self.answers:
            raise self.answers.pop(0)
        self.wires.append(FakeWire(len(self.wires)))
        return self.wires[-1]


@asynccontextmanager
async def linked(broker: Broker, give_up_after: float = 100) -> AsyncIterator[Link[FakeWire]]:
    async with trio.open_nursery() as nursery:
        link = Link("the broker", broker.connect, give_up_after, nursery)
        nursery.start_soon(link.keep)
        yield link
        nursery.cancel_scope.cancel()


async def test_who_needs_the_connection_waits_for_it(autojump_clock: MockClock) -> None:
    broker = Broker([WireLost("not yet"), WireLost("not yet")])
    async with linked(broker) as link:
        assert (await link.wire()).number == 0
        assert len(broker.attempts) == 3
        assert 0 < trio.current_time() - broker.attempts[0] <= FIRST_WAIT * 3


async def test_a_lost_connection_is_replaced(autojump_clock: MockClock) -> None:
    broker = Broker()
    async with linked(broker) as link:
        first = await link.wire()
        await trio.sleep(LONGEST_WAIT)
        first.closed.set()
        assert (await link.wire()).number == 1


async def test_one_that_is_lost_at_once_again_and_again_is_not_replaced_in_a_hurry(autojump_clock: MockClock) -> None:
    broker = Broker()
    async with linked(broker) as link:
        for _ in range(10):
            (await link.wire()).closed.set()
        assert trio.current_time() - broker.attempts[0] >= 8


async def test_waits_grow_and_trying_ends_after_the_setting(autojump_clock: MockClock) -> None:
    broker = Broker([WireLost("no route")] * 1000)
    async with linked(broker, give_up_after=100) as link:
        with pytest.raises(BrokerLost, match=r"the broker at the broker was out of reach for 100 s: no route"):
            await link.wire()
        waited = [later - sooner for sooner, later in zip(broker.attempts, broker.attempts[1:], strict=False)]
        assert max(waited) <= LONGEST_WAIT
        assert waited[-1] > waited[0]
        assert 80 < trio.current_time() - broker.attempts[0] <= 100


@pytest.mark.parametrize("failure", [BrokerRefused("the token ended"), WireLost("no route")])
async def test_everybody_who_waits_is_told_the_end_in_an_exception_of_his_own(
    autojump_clock: MockClock, failure: Exception
) -> None:
    broker = Broker()
    told: list[Exception] = []
    async with linked(broker, give_up_after=5) as link, trio.open_nursery() as nursery:
        wire = await link.wire()
        broker.answers = [failure] * 100
        wire.closed.set()
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(wait_and_note, link, told.append)
    assert {type(each) for each in told} == {BrokerRefused if isinstance(failure, BrokerRefused) else BrokerLost}
    assert len({id(each) for each in told}) == 3
    assert failure not in told


async def wait_and_note(link: Link[FakeWire], note: Callable[[Exception], None]) -> None:
    try:
        await link.wire()
    except (BrokerLost, BrokerRefused) as error:
        note(error)


async def test_closing_says_good_bye_on_the_last_connection(autojump_clock: MockClock) -> None:
    broker = Broker()
    async with linked(broker) as link:
        (await link.wire()).closed.set()
        await link.wire()
        await link.close()
    assert [wire.said_goodbye for wire in broker.wires] == [False, True]
