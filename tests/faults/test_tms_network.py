"""A taskforce's whole life while the network between the TMS and the WMS fails again and again, in each way.

Except by losses at random, which are chaos's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import pytest
import trio
from tms_bench import Bench, until

from ewms.testing.proxy import Proxy, open_proxy
from ewms.wms.models import Phase

_PATIENCE: Final = 0.3
"""Of each call, in s; the true one has 30."""


async def _slowly(proxy: Proxy) -> None:
    proxy.delay = 0.05
    await trio.lowlevel.checkpoint()


async def _in_turns(proxy: Proxy, harm: Callable[[], object], heal: Callable[[], object]) -> None:
    """As often as the whole story takes on a quick machine; on a slow one the rest of it has a good network."""
    for _ in range(10):
        harm()
        await trio.sleep(0.4)
        heal()
        await trio.sleep(0.4)


def _refuse(proxy: Proxy, *, refusing: bool) -> None:
    proxy.refusing = refusing
    proxy.drop()


NETWORKS: Final[dict[str, Callable[[Proxy], Awaitable[object]]]] = {
    "slow": _slowly,
    "stalling": lambda proxy: _in_turns(proxy, proxy.stall, proxy.resume),
    "half-open": lambda proxy: _in_turns(proxy, proxy.sever, proxy.resume),
    "resetting": lambda proxy: _in_turns(proxy, proxy.reset, lambda: None),
    "refusing": lambda proxy: _in_turns(
        proxy, lambda: _refuse(proxy, refusing=True), lambda: _refuse(proxy, refusing=False)
    ),
}


ARRIVES_LATE: Final = {"slow", "stalling"}
"""Here a call that was given up may still reach the WMS, after a later one: then it shows the earlier statuses."""


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
async def test_one_cluster_and_its_whole_story_is_told(bench: Bench, how: str) -> None:
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
        # Whoever gets no answer must tell it again: the end may be told twice, but nothing after it.
        assert set(told[told.index(Phase.CONDOR_COMPLETE) :]) == {Phase.CONDOR_COMPLETE}
        if how not in ARRIVES_LATE:
            assert set(bench.taskforce(uuid).compound_statuses) == {"REMOVED"}
