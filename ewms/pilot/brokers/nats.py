"""NATS JetStream: pull consumers, publishing that the stream confirms, signs of life for long tasks, reconnecting.

One task keeps the connection, one per source keeps asking for messages. Whatever breaks is made anew with capped,
jittered backoff; what cannot get better (a token, a queue that cannot be) is told at once.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from ewms.pilot.brokers.asynciolink import open_asyncio_link
from ewms.pilot.brokers.keptsource import kept
from ewms.pilot.brokers.link import client_name
from ewms.pilot.brokers.natsaddress import parse_address
from ewms.pilot.brokers.natsqueue import NatsLink
from ewms.pilot.brokers.natssink import NatsSink
from ewms.pilot.brokers.natssource import NatsSource
from ewms.pilot.brokers.natswire import open_wire
from ewms.secret import Secret


@asynccontextmanager
async def connect(address: str, auth_token: Secret, *, give_up_after: float) -> AsyncIterator["Nats"]:
    """Connect to a NATS server, and keep connected.

    Raises:
        BrokerRefused: the address is none, or the server refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    where = parse_address(address, auth_token)
    connect_once = partial(open_wire, address=where, name=client_name())
    async with open_asyncio_link(str(where), connect_once, give_up_after) as link:
        yield Nats(link)


class Nats:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link

    def source(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[NatsSource]:
        """Consume `queue`, which is made if need be; leaving hands back what has no verdict."""
        return kept(NatsSource(self._link, queue, prefetch), self._link.nursery)

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator[NatsSink]:
        """Publish to `queue`, which is made if need be."""
        sink = NatsSink(self._link, queue)
        await sink.open()
        yield sink
