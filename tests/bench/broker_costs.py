"""What RabbitMQ, one node of it, needs for pilots: memory of a connection, and processor of an event.

A pilot here is its two connections, as with a token for each queue: one consumes with a prefetch of one, the other one
publishes and waits for the confirm; between them lies nothing. A user publishes with confirms, and takes the results
with an ack each. Queues are quorum queues, heartbeats are the pilot's.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiormq
import attrs
import psutil
from aiormq.abc import AbstractChannel, DeliveredMessage

from ewms.pilot import events
from ewms.pilot.brokers.rabbitmq import HEARTBEAT
from ewms.testing.broker import RabbitServer
from ewms.testing.pool.rabbitmq import USER

PILOTS = 500
EVENTS = 5_000
REST = 15.0
"""Seconds that the broker gets to come to rest; for so long it is then looked at doing nothing."""
_IN_FLIGHT = PILOTS
"""Events that the user publishes, or takes, at a time: no pilot shall wait for one."""
_PERSISTENT = 2


async def costs(server: RabbitServer, beam: psutil.Process) -> dict[str, float]:
    """One run of everything.

    `beam` is the server's process, newly started: room that earlier connections left would hide what new ones need.
    """
    place = _Place(f"amqp://{USER}:{server.token.reveal()}@127.0.0.1:{server.port}/?heartbeat={HEARTBEAT}")
    await place.declare()
    async with place.pilots(PILOTS // 50):
        await place.process(10 * PILOTS)
    before = await _at_rest(beam)
    async with place.pilots(PILOTS):
        await place.process(2 * PILOTS)  # nobody's connection is as new as opened
        after = await _at_rest(beam)
        idle_from, used = time.monotonic(), _cpu_s(beam)
        await asyncio.sleep(REST)
        idle = (_cpu_s(beam) - used) / (time.monotonic() - idle_from)
        began, used = time.monotonic(), _cpu_s(beam)
        await place.process(EVENTS)
        took = time.monotonic() - began
        used = _cpu_s(beam) - used - idle * took
    return {
        "connection_memory": (after - before) / (2 * PILOTS),
        "event_broker_cpu": used / EVENTS,
        "broker_idle_cpu": idle,
        "events_per_s": EVENTS / took,
    }


async def _at_rest(beam: psutil.Process) -> int:
    """Its own memory, in bytes."""
    await asyncio.sleep(REST)
    return int(beam.memory_full_info().uss)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


@attrs.frozen
class _Place:
    """A broker with two queues."""

    url: str = attrs.field(repr=False)

    async def declare(self) -> None:
        async with self._channel() as channel:
            for queue in ("in", "out"):
                await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})

    @asynccontextmanager
    async def pilots(self, count: int) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(count):
                source = await stack.enter_async_context(self._channel(publisher_confirms=False))
                sink = await stack.enter_async_context(self._channel())
                await source.basic_qos(prefetch_count=1)
                await source.basic_consume("in", _Passing(source, sink).take)
            gc.collect()
            yield

    async def process(self, count: int) -> None:
        """Put so many events, and get as many results."""
        left, over = count, asyncio.Event()

        async def take(message: DeliveredMessage) -> None:
            nonlocal left
            await source.basic_ack(message.delivery_tag or 0)
            left -= 1
            if not left:
                over.set()

        async with self._channel(publisher_confirms=False) as source, self._channel() as sink:
            await source.basic_qos(prefetch_count=_IN_FLIGHT)
            await source.basic_consume("out", take)
            numbers = iter(range(count))
            await asyncio.gather(*(_put(sink, numbers) for _ in range(_IN_FLIGHT)))
            await over.wait()

    @asynccontextmanager
    async def _channel(self, *, publisher_confirms: bool = True) -> AsyncIterator[AbstractChannel]:
        """On a connection of its own."""
        connection = await aiormq.connect(self.url)
        try:
            yield await connection.channel(publisher_confirms=publisher_confirms)
        finally:
            await connection.close()


@attrs.frozen
class _Passing:
    """A pilot without containers."""

    source: AbstractChannel
    sink: AbstractChannel

    async def take(self, message: DeliveredMessage) -> None:
        await _publish(self.sink, message.body, "out")
        await self.source.basic_ack(message.delivery_tag or 0)


async def _put(sink: AbstractChannel, numbers: Iterator[int]) -> None:
    for number in numbers:
        await _publish(sink, events.encode(f"event {number}"), "in")


async def _publish(sink: AbstractChannel, body: bytes, queue: str) -> None:
    properties = aiormq.spec.Basic.Properties(delivery_mode=_PERSISTENT)
    await sink.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)
