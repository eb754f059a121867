"""A taskforce's whole life while the network between the TMS and the WMS fails again and again, in each way."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn
from urllib.parse import urlsplit

import pytest
import trio
from tms_bench import Bench, until

from ewms.testing.proxy import Proxy, open_proxy
from ewms.wms.models import Phase

_PATIENCE: Final = 0.3
"""Of each call, in s; the true one has 30."""


async def _steadily(proxy: Proxy, *, delay: float = 0.0, loss: float = 0.0) -> None:
    proxy.delay, proxy.loss = delay, loss
    await trio.lowlevel.checkpoint()


async def _in_turns(proxy: Proxy, harm: Callable[[], object], heal: Callable[[], object]) -> NoReturn:
    while True:
        harm()
        await trio.sleep(0.4)
        heal()
        await trio.sleep(0.4)


def _refuse(proxy: Proxy, *, refusing: bool) -> None:
    proxy.refusing = refusing
    proxy.drop()


NETWORKS: Final[dict[str, Callable[[Proxy], Awaitable[object]]]] = {
    "slow": lambda proxy: _steadily(proxy, delay=0.05),
    "lossy": lambda proxy: _steadily(proxy, loss=0.1),
    "stalling": lambda proxy: _in_turns(proxy, proxy.stall, proxy.resume),
    "half-open": lambda proxy: _in_turns(proxy, proxy.sever, proxy.resume),
    "resetting": lambda proxy: _in_turns(proxy, proxy.reset, lambda: None),
    "refusing": lambda proxy: _in_turns(
        proxy, lambda: _refuse(proxy, refusing=True), lambda: _refuse(proxy, refusing=False)
    ),
}


@asynccontextmanager
async def network(bench: Bench, how: str) -> AsyncIterator[str]:
    """The WMS's address behind such a network."""
    where = urlsplit(bench.standin.address)
    assert where.hostname is not None
    assert where.port is not None
    async with open_proxy(where.hostname, where.port) as proxy, trio.open_nursery() as nursery:
        nursery.start_soon(NETWORKS[how], proxy)
        yield f"http://{proxy.host}:{proxy.port}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", NETWORKS)
async def test_one_cluster_and_nothing_told_twice(bench: Bench, how: str) -> None:
    async with network(bench, how) as address, bench.tms(address=address, patience=_PATIENCE):
        uuids = [bench.order() for _ in range(3)]
        await until(lambda: all(bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT for uuid in uuids))
        await until(lambda: all(bench.taskforce(uuid).compound_statuses for uuid in uuids))
        for uuid in uuids:
            bench.stop(uuid)
        await until(lambda: all(bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE for uuid in uuids))
    assert sorted(cluster.uuid for cluster in bench.schedd.clusters.values()) == sorted(uuids)
    for uuid in uuids:
        log = bench.taskforce(uuid).phase_change_log
        assert all(change.was_successful for change in log)
        told = [change.target_phase for change in log]
        assert told.count(Phase.CONDOR_SUBMIT) == 1
        assert told.count(Phase.CONDOR_COMPLETE) == 1
        assert set(bench.taskforce(uuid).compound_statuses) == {"REMOVED"}
