"""RabbitMQ: quorum queues, push consumers with a constant prefetch, confirmed mandatory publishing, reconnecting.

One task keeps the connection, one per source keeps its consumer; a sink opens its channel when it publishes. Whatever
breaks is made anew with capped, jittered backoff; what cannot get better (credentials, a queue that does not exist) is
told at once. Messages that were pushed but not given out when a channel died are forgotten: the broker redelivers them.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import trio

from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.pilot.brokers.amqpwire import open_wire
from ewms.pilot.brokers.asynciolink import open_asyncio_link
from ewms.pilot.brokers.keptsource import kept
from ewms.pilot.brokers.link import CLOSE_TIMEOUT, client_name
from ewms.pilot.brokers.rabbitlink import RabbitLink
from ewms.pilot.brokers.rabbitsink import RabbitSink
from ewms.pilot.brokers.rabbitsource import RabbitSource
from ewms.secret import Secret

HEARTBEAT: Final = 15
"""One is sent every half of it; a silent connection is given up after three of it (s)."""


@asynccontextmanager
async def connect(address: str, auth_token: Secret, *, give_up_after: float) -> AsyncIterator["RabbitMQ"]:
    """Connect to a RabbitMQ server, and keep connected.

    Raises:
        BrokerRefused: the address is none, or the server refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    where = parse_address(address, auth_token)
    connect_once = partial(open_wire, address=where, heartbeat=HEARTBEAT, name=client_name())
    async with open_asyncio_link(str(where), connect_once, give_up_after) as link:
        yield RabbitMQ(link)


class RabbitMQ:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, link: RabbitLink) -> None:
        self._link = link

    def source(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[RabbitSource]:
        """Consume `queue`; leaving hands back what was not given out."""
        return kept(RabbitSource(self._link, queue, prefetch), self._link.nursery)

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator[RabbitSink]:
        """Publish to `queue`, which is declared if we may."""
        sink = RabbitSink(self._link, queue)
        try:
            await sink.open()
            yield sink
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await sink.close()
