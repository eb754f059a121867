"""Real pilots at work while the network to RabbitMQ is bad, each in its own way: every event has its output."""

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from broker_pilots import pilot
from broker_places import Place, put

from ewms.pilot import events
from ewms.testing.proxy import Proxy, open_proxy

EVENTS: Final = 20
SCRIPT: Final = "sleep 0.3; cp $1 $2"
PATIENCE: Final = 180
"""A silent connection is given up after some 45 s."""


async def _reset_often(proxy: Proxy) -> None:
    for _ in range(4):
        proxy.reset()
        await trio.sleep(1.5)


async def _for_a_time(proxy: Proxy, harm: Callable[[], object], seconds: float) -> None:
    harm()
    await trio.sleep(seconds)
    proxy.resume()


async def _steadily(proxy: Proxy, *, delay: float = 0.0, loss: float = 0.0) -> None:
    proxy.delay, proxy.loss = delay, loss
    await trio.lowlevel.checkpoint()


NETWORKS: Final[dict[str, Callable[[Proxy], Awaitable[None]]]] = {
    "slow": lambda proxy: _steadily(proxy, delay=0.2),
    "lossy": lambda proxy: _steadily(proxy, loss=0.1),
    "stalling": lambda proxy: _for_a_time(proxy, proxy.stall, 5),
    "half-open": lambda proxy: _for_a_time(proxy, proxy.sever, 3),
    "resetting": _reset_often,
}


@pytest.mark.broker
@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
async def test_every_event_has_its_output_over_a_bad_network(place: Place, tmp_path: Path) -> None:
    """All kinds side by side: the half-open one takes its time."""
    found: dict[str, Counter[str]] = {}
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for how in NETWORKS:
                nursery.start_soon(_one, place, tmp_path / how, how, found)
    for how, outputs in found.items():
        assert set(outputs) == {f"event {n}" for n in range(EVENTS)}, how
        # What was in work, or had its output but no ack, when a connection broke: three slots, four resets.
        assert outputs.total() - EVENTS <= 3 * 4, how


async def _one(place: Place, directory: Path, how: str, found: dict[str, Counter[str]]) -> None:
    host, _, port = place.address.rpartition("@")[2].partition(":")
    own = attrs.evolve(place, queue=f"{place.queue}-{how}")
    outputs = found[how] = Counter()
    async with open_proxy(host, int(port)) as proxy, own.connect() as broker:
        far = attrs.evolve(own, address=own.address.replace(f":{port}", f":{proxy.port}"))
        await put(broker, own.queue, *(events.encode(f"event {n}") for n in range(EVENTS)))
        async with pilot(far, directory, SCRIPT), broker.source(f"{own.queue}-out", prefetch=10) as source:
            while len(outputs) < EVENTS:
                delivery = await source.receive()
                outputs[events.decode(delivery.body, None).data] += 1
                await source.ack(delivery)
                if outputs.total() == EVENTS // 4:
                    await NETWORKS[how](proxy)
