"""The access point's clock steps, by a day and either way: the names of logs follow it, and nothing else changes."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from tms_bench import Bench, until

from ewms.testing.wms import Fault
from ewms.tms.entries import Entry
from ewms.wms.models import Phase

DAY = 86400.0
NOON = time.time() // DAY * DAY + DAY / 2


@attrs.define
class Clock:
    """The wall clock as the TMS's modules see it. It stands still between steps: no test meets a midnight."""

    now: float = NOON

    def day_log(self) -> str:
        return time.strftime("%Y-%m-%d.tms.jel", time.gmtime(self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What HTCondor, the file system and the WMS see does not step with it."""
    clock = Clock()
    stepping = SimpleNamespace(
        time=lambda: clock.now,
        gmtime=lambda seconds=None: time.gmtime(clock.now if seconds is None else seconds),
        strftime=time.strftime,
    )
    for name, module in list(sys.modules.items()):
        if name.startswith("ewms.tms.") and getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", stepping)
    return clock


def running(bench: Bench, uuid: str) -> Callable[[], bool]:
    return lambda: bool(bench.taskforce(uuid).compound_statuses)


def completed(bench: Bench, uuid: str) -> Callable[[], bool]:
    return lambda: bench.taskforce(uuid).phase == Phase.CONDOR_COMPLETE


async def test_each_start_goes_into_the_log_of_its_day_and_all_of_them_are_watched(bench: Bench, clock: Clock) -> None:
    orders: dict[str, tuple[float, str]] = {}
    async with bench.tms() as ctx:
        for step in (0, DAY, -DAY):
            clock.now = NOON + step
            uuid = bench.order()
            orders[uuid] = clock.now, clock.day_log()
            await until(running(bench, uuid))
        clock.now = NOON
        for uuid in orders:
            bench.stop(uuid)
            await until(completed(bench, uuid))
        await until(lambda: not ctx.outbox.counts())
        entries = {entry.taskforce_uuid: entry for entry in await ctx.ledger.entries()}
    for uuid, (began, day_log) in orders.items():
        assert Path(bench.taskforce(uuid).job_event_log_fpath).name == day_log
        assert told(entries[uuid]) == [began, began, NOON, NOON, NOON]
        assert not entries[uuid].is_unsettled
        assert not entries[uuid].has_open_stop
        assert not entries[uuid].has_open_end
    assert bench.schedd.calls.count("submit") == 3
    assert not bench.schedd.queued


def told(entry: Entry) -> list[float | None]:
    return [entry.intended_at, entry.confirmed_at, entry.stop_began_at, entry.stopped_at, entry.completed_at]


@pytest.mark.parametrize("step", [DAY, -DAY], ids=["ahead", "back"])
async def test_a_step_between_a_crash_and_the_restart_hides_no_cluster(bench: Bench, clock: Clock, step: float) -> None:
    """Only the log of the wrong day knows the cluster, which has ended, and the intent names that log."""
    uuid, day_log = bench.order(), clock.day_log()

    bench.standin.faults.add(Fault(path="*/condor-submit/*", drop=True))
    async with bench.tms() as ctx:
        await until(lambda: "condor-submit" in bench.posts(uuid))
    bench.standin.faults.clear()
    await ctx.ledger.update(uuid, cluster_id=None)
    bench.schedd.finish(1)
    del bench.schedd.clusters[1]
    clock.now += step
    async with bench.tms():
        other = bench.order()
        await until(running(bench, other))
        await until(completed(bench, uuid))
    assert bench.taskforce(uuid).cluster_id == 1
    assert Path(bench.taskforce(uuid).job_event_log_fpath).name == day_log
    assert Path(bench.taskforce(other).job_event_log_fpath).name == clock.day_log() != day_log
    assert bench.schedd.calls.count("submit") == 2
