"""Publishing to RabbitMQ by the clock: what is tried again, for how long, and what is told at once."""

from typing import Any

import pytest
import trio
from rabbit_fakes import FakeChannel, FakeLink
from trio.testing import MockClock

from ewms.pilot.brokers.amqpwire import ChannelRefused
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, PublishRefused
from ewms.pilot.brokers.link import LONGEST_WAIT, WireLost
from ewms.pilot.brokers.rabbitsink import RabbitSink

GIVE_UP_AFTER = 100.0


def link_of(nursery: trio.Nursery, channel: FakeChannel) -> Any:
    return FakeLink(nursery, lambda: channel, GIVE_UP_AFTER)


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (403, BrokerRefused, "queue 'out' may not be written to: no"),
        (405, PublishRefused, "queue 'out' does not take this message: no"),
        (406, PublishRefused, "queue 'out' does not take this message: no"),
    ],
)
async def test_a_refusal_is_blamed_on_the_message_or_on_the_permissions(
    autojump_clock: MockClock, nursery: trio.Nursery, code: int, error: type[Exception], text: str
) -> None:
    tried = 0

    async def refuse() -> None:
        nonlocal tried
        tried += 1
        raise ChannelRefused(code, "no")

    sink = RabbitSink(link_of(nursery, FakeChannel(on_publish=refuse)), "out")
    with pytest.raises(error, match=text) as caught:
        await sink.publish(b"x", message_id="1")
    assert type(caught.value) is error
    # Of several messages on one channel another one may be too large.
    assert tried == (2 if code == 406 else 1)


async def test_a_broker_that_never_answers_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It takes the connection, and says nothing about the queue."""
    link = link_of(nursery, FakeChannel(on_declare=silence))
    began = trio.current_time()
    with pytest.raises(BrokerLost, match=r"queue 'out' cannot be opened: no answer"):
        await RabbitSink(link, "out").open()
    assert GIVE_UP_AFTER - LONGEST_WAIT < trio.current_time() - began < GIVE_UP_AFTER + 2 * LONGEST_WAIT
    assert len(link.channels) > 5
    assert all(channel.closed.is_set() for channel in link.channels)


async def silence() -> None:
    await trio.sleep(LONGEST_WAIT)
    raise WireLost("no answer")
