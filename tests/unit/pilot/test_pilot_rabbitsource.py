"""Consuming from RabbitMQ by the clock: what is tried again, for how long, and what is told at once."""

from typing import Any

import pytest
import trio
from rabbit_fakes import FakeChannel, FakeLink
from trio.testing import MockClock

from ewms.pilot.brokers.amqpwire import ChannelRefused
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery
from ewms.pilot.brokers.keptsource import kept
from ewms.pilot.brokers.link import LONGEST_WAIT, WireLost
from ewms.pilot.brokers.rabbitsource import RabbitSource

GIVE_UP_AFTER = 100.0
AGES = 100_000.0


async def refuse() -> None:
    raise ChannelRefused(403, "read access refused")


async def silence() -> None:
    await trio.sleep(LONGEST_WAIT)
    raise WireLost("no answer")


@pytest.fixture
def channels() -> list[FakeChannel]:
    """The next ones that a link gives out."""
    return []


@pytest.fixture
def link(nursery: trio.Nursery, channels: list[FakeChannel]) -> Any:
    return FakeLink(nursery, lambda: channels.pop(0) if channels else FakeChannel(), GIVE_UP_AFTER)


async def test_a_delivery_that_nobody_gave_gets_no_verdict(autojump_clock: MockClock, link: Any) -> None:
    async with kept(RabbitSource(link, "in", 1), link.nursery) as source:
        for verdict in (source.ack, source.reject, source.hand_back):
            assert not await verdict(Delivery(b"", "in"))
    assert link.channels[0].verdicts == []


@pytest.mark.parametrize("code", [403, 404])
async def test_who_may_not_read_is_told_at_once(
    autojump_clock: MockClock, link: Any, channels: list[FakeChannel], code: int
) -> None:
    async def refuse_so() -> None:
        raise ChannelRefused(code, "no")

    channels.append(FakeChannel(on_consume=refuse_so))
    with pytest.raises(BrokerRefused, match="queue 'in' cannot be used: no"), trio.fail_after(AGES):
        async with kept(RabbitSource(link, "in", 1), link.nursery):
            pass
    assert len(link.channels) == 1


async def test_a_refusal_after_it_worked_is_waited_out(
    autojump_clock: MockClock, link: Any, channels: list[FakeChannel]
) -> None:
    """A broker that was restarted may not know its queues and users for a while."""
    first, last = FakeChannel(), FakeChannel()
    channels += [first, *(FakeChannel(on_consume=refuse) for _ in range(5)), last]
    async with kept(RabbitSource(link, "in", 1), link.nursery) as source:
        await trio.sleep(AGES)
        await first.close()
        await last.consumes.wait()
        last.push(b"x")
        assert (await source.receive()).body == b"x"


@pytest.mark.parametrize(
    "make",
    [lambda: FakeChannel(on_declare=silence), lambda: FakeChannel(on_consume=silence)],
    ids=["declare", "consume"],
)
@pytest.mark.parametrize("worked", [False, True])
async def test_a_broker_that_never_answers_is_given_up(
    autojump_clock: MockClock, link: Any, channels: list[FakeChannel], make: Any, worked: bool
) -> None:
    """It takes connections, and then says nothing; each channel is closed, or a late consumer would push on it."""
    first = FakeChannel()
    channels += [*([first] if worked else []), *(make() for _ in range(1000))]
    began = trio.current_time()

    async def consume() -> None:
        nonlocal began
        async with kept(RabbitSource(link, "in", 1), link.nursery) as source:
            await trio.sleep(1000)
            began = trio.current_time()
            await first.close()
            await source.receive()

    with pytest.raises(BrokerLost, match="queue 'in' cannot be consumed: no answer"), trio.fail_after(AGES):
        await consume()
    assert GIVE_UP_AFTER <= trio.current_time() - began < GIVE_UP_AFTER + 3 * LONGEST_WAIT
    assert all(channel.closed.is_set() for channel in link.channels)


async def test_what_nobody_received_when_its_consumer_ended_is_not_run(autojump_clock: MockClock, link: Any) -> None:
    """`consumer_timeout` counts from when the broker pushed it, not from when a slot was free."""
    async with kept(RabbitSource(link, "in", 2), link.nursery) as source:
        channel = link.channels[0]
        channel.push(b"runs")
        channel.push(b"waits")
        assert source.holds(await source.receive())
        channel.consumer_ended.set()
        await trio.sleep(LONGEST_WAIT)
        late = await source.receive()
        assert late.body == b"waits"
        assert not source.holds(late)


async def test_a_consumer_that_begins_while_its_source_is_stopped_is_stopped_too(
    autojump_clock: MockClock, link: Any, channels: list[FakeChannel]
) -> None:
    """Else it would keep an event from other pilots for as long as the last tasks run."""
    channel = FakeChannel()
    channels.append(channel)
    async with kept(RabbitSource(link, "in", 1), link.nursery) as source:
        asked, answered = trio.Event(), trio.Event()

        async def answer_late() -> None:
            asked.set()
            await answered.wait()

        channel.on_consume = answer_late
        channel.consumer_ended.set()
        await asked.wait()
        await source.stop()
        assert channel.stopped == []
        answered.set()
        await trio.sleep(LONGEST_WAIT)
        assert channel.stopped == ["tag"]
        assert not channel.closed.is_set()


async def test_what_was_pushed_goes_back_though_its_consumer_has_just_ended(
    autojump_clock: MockClock, link: Any
) -> None:
    async with kept(RabbitSource(link, "in", 3), link.nursery) as source:
        channel = link.channels[0]
        for body in (b"runs", b"waits", b"waits, too"):
            channel.push(body)
        await source.receive()
        channel.consumer_ended.set()
        await trio.sleep(0.05)
        await source.stop()
        assert channel.verdicts == [("nack", 2), ("nack", 3)]
