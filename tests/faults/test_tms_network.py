"""A taskforce's whole life while the network between the TMS and the WMS fails again and again, in each way.

Except by losses at random, which are chaos's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import attrs
import pytest
import trio
from tms_bench import Bench, until

from ewms.testing.proxy import Proxy, open_proxy
from ewms.testing.wms import Fault
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


STATUSES: Final = "/v1/tms/statuses/taskforces"
SETTLE_TIME: Final = 2.0
"""What was given up arrives when the network is well again, within 0.4 s: these are for a busy machine."""


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return attrs.evolve(bench, settings=attrs.evolve(bench.settings, settle_time=SETTLE_TIME))


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
        assert set(bench.taskforce(uuid).compound_statuses) == {"REMOVED"}


async def test_a_report_upon_which_the_wms_acts_late(bench: Bench) -> None:
    async with bench.tms(patience=_PATIENCE):
        uuid = bench.order()
        await until(lambda: bench.taskforce(uuid).compound_statuses == {"IDLE": {"null": 2}})
        bench.standin.faults.add(Fault(path=STATUSES, delay=1.0, count=1))
        for proc in range(2):
            bench.schedd.write(1, "001", proc, f"Job executing on host: <127.0.0.1:9618>\n\tSlotName: slot1_{proc}@ep")
            await until(lambda: any(each.fault.delay for each in bench.standin.requests))
        (late,) = (each for each in bench.standin.requests if each.fault.delay)
        await until(lambda: late.status is not None)  # its caller is gone
        told = len(bench.standin.called(STATUSES))
        await until(lambda: len(bench.standin.called(STATUSES)) > told)
        await until(lambda: bench.taskforce(uuid).compound_statuses == {"RUNNING": {"null": 2}})
