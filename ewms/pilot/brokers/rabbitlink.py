"""Channels of a RabbitMQ connection on which a queue can be used."""

from typing import Final

import trio

from ewms.pilot.brokers.amqpwire import AmqpWire, ChannelRefused, WireChannel
from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import CLOSE_TIMEOUT, Link

RabbitLink = Link[AmqpWire]

ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406
_OTHERS_MAY_HAVE_MADE_IT: Final = frozenset({ACCESS_REFUSED, PRECONDITION_FAILED})


async def open_queue_channel(link: RabbitLink, queue: str, *, publisher_confirms: bool) -> WireChannel:
    """A channel on which `queue` is known to exist: declared, or, where that is refused, found.

    Raises:
        BrokerRefused: it does not exist, or we may not use it.
        WireLost: try again.
        BrokerLost: there is no connection any more.
    """
    for passive in (False, True):
        channel = await (await link.wire()).open_channel(publisher_confirms=publisher_confirms)
        try:
            await channel.declare(queue, passive=passive)
        except ChannelRefused as error:
            if passive or error.code not in _OTHERS_MAY_HAVE_MADE_IT:
                raise BrokerRefused(f"queue {queue!r} cannot be used: {error}") from error
            continue
        except BaseException:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await channel.close()
            raise
        return channel
    raise AssertionError("the second refusal is raised")
