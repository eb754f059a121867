"""RabbitMQ: quorum queues, push consumers with a constant prefetch, confirmed mandatory publishing, reconnecting.

One task keeps the connection, one per source keeps its consumer; a sink opens its channel when it publishes. Whatever
breaks is made anew with capped, jittered backoff; what cannot get better (credentials, a queue that does not exist) is
told at once. Messages that were pushed but not given out when a channel died are forgotten: the broker redelivers them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ewms.pilot.brokers._asyncio import open_border
from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.pilot.brokers.rabbitlink import Link
from ewms.pilot.brokers.rabbitsink import RabbitSink
from ewms.pilot.brokers.rabbitsource import RabbitSource
from ewms.secret import Secret


@asynccontextmanager
async def connect(address: str, auth_token: Secret, *, give_up_after: float) -> AsyncIterator["RabbitMQ"]:
    """Connect to a RabbitMQ server, and keep connected.

    Raises:
        BrokerRefused: the address is none, or the server refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    where = parse_address(address, auth_token)
    raised: BaseException | None = None
    try:
        async with open_border() as border, _kept(Link(border, where, give_up_after)) as broker:
            try:
                yield broker
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        # The nurseries in between, whose own tasks raise nothing, wrap what the body raises.
        if raised is None:
            raised = _only(group)
    if raised is not None:
        raise raised


@asynccontextmanager
async def _kept(link: Link) -> AsyncIterator["RabbitMQ"]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep)
        try:
            await link.wire()
            yield RabbitMQ(link, nursery)
        finally:
            nursery.cancel_scope.cancel()
            await link.close()


def _only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


class RabbitMQ:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, link: Link, nursery: trio.Nursery) -> None:
        self._link = link
        self._nursery = nursery

    @asynccontextmanager
    async def source(self, queue: str, *, prefetch: int) -> AsyncIterator[RabbitSource]:
        """Consume `queue`; leaving hands back what was not given out."""
        source = RabbitSource(self._link, queue, prefetch)
        scope = trio.CancelScope()
        self._nursery.start_soon(source.keep, scope)
        try:
            await source.opened()
            yield source
        finally:
            scope.cancel()
            await source.close()

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator[RabbitSink]:
        """Publish to `queue`, which is declared if we may."""
        sink = RabbitSink(self._link, queue)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()
