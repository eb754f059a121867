"""A bad network between a pilot and RabbitMQ: whatever breaks, each event has one output."""

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest
import trio
from pilot_fakes import World

from ewms.pilot import events, service
from ewms.pilot.brokers import open_broker, rabbitmq
from ewms.pilot.settings import PilotSettings
from ewms.testing.proxy import Proxy, open_proxy

if TYPE_CHECKING:
    from ewms.testing.broker import RabbitServer

EVENTS: Final = 24
SLOTS: Final = 4
RESETS: Final = 3
PATIENCE: Final = 90


async def slow(proxy: Proxy) -> None:
    proxy.delay = 0.1
    await trio.sleep(1)
    proxy.delay = 0


async def lossy(proxy: Proxy) -> None:
    proxy.loss = 0.3
    await trio.sleep(1)
    proxy.loss = 0


async def half_open(proxy: Proxy) -> None:
    """Until new connections get through there is nothing but silence."""
    proxy.sever()
    await trio.sleep(1)
    proxy.resume()


async def reset_often(proxy: Proxy) -> None:
    for _ in range(RESETS):
        proxy.reset()
        await trio.sleep(0.5)


async def work(world: World, settings: PilotSettings) -> NoReturn:
    status = await service.main(settings, platforms=world.open_platform)
    raise AssertionError(f"the pilot ended with {status}")


@pytest.mark.broker
@pytest.mark.parametrize("harm", [slow, lossy, half_open, reset_often])
async def test_each_event_has_one_output_over_a_bad_network(
    rabbit: "RabbitServer",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Proxy], Awaitable[None]],
) -> None:
    monkeypatch.setattr(rabbitmq, "HEARTBEAT", 2)  # a silent connection is given up after three of it
    queue = f"network-{uuid.uuid4().hex[:12]}"
    names = [f"event {number}" for number in range(EVENTS)]
    world = World(tmp_path)
    user, _, port = rabbit.address.rpartition(":")
    outputs: dict[str, Counter[str]] = {}
    async with (
        open_broker("rabbitmq", rabbit.address, rabbit.token) as broker,
        open_proxy("127.0.0.1", int(port)) as proxy,
        trio.open_nursery() as nursery,
    ):
        async with broker.sink(queue) as sink, broker.sink(f"{queue}-out"):
            for name in names:
                await sink.publish(events.encode(name), message_id=name)
        far = {"broker_address": f"{user}:{proxy.port}", "auth_token": rabbit.token.reveal()}
        settings = world.settings(
            queue_incoming=queue,
            queue_outgoing=f"{queue}-out",
            max_concurrent_tasks=SLOTS,
            timeout_queue_incoming=PATIENCE,  # what a dead connection has comes back when the broker has seen its end
            **{f"queue_{way}_{name}": value for way in ("incoming", "outgoing") for name, value in far.items()},
        )
        nursery.start_soon(work, world, settings)
        with trio.fail_after(PATIENCE):
            async with broker.source(f"{queue}-out", prefetch=10) as source:
                while len(outputs) < EVENTS:
                    delivery = await source.receive()
                    output = events.decode(delivery.body, delivery.message_id)
                    outputs.setdefault(output.event_id, Counter())[output.data] += 1
                    await source.ack(delivery)
                    if sum(map(Counter.total, outputs.values())) == SLOTS:
                        nursery.start_soon(harm, proxy)
        nursery.cancel_scope.cancel()
    assert proxy.connections >= (2 if harm in (half_open, reset_often) else 1)
    assert sorted(name for found in outputs.values() for name in found) == sorted(names)
    # Done twice, under one id, is what a connection that broke took the verdict of.
    assert sum(map(Counter.total, outputs.values())) - EVENTS <= SLOTS * RESETS
