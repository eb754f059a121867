"""A fault that found nothing to act on says so, and is not counted among those that were done."""

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from ewms.testing.proxy import Proxy, open_proxy
from tests.chaos import acts_broker, acts_files, acts_jobs, acts_network, acts_wms
from tests.chaos.kinds import Act, Heals, Kind
from tests.chaos.monitor import Monitor
from tests.chaos.run import Plan, Run
from tests.chaos.schedule import Timed
from tests.chaos.system import Job, NotDone, System
from tests.chaos.tms import TmsKeeper

TIMED = Timed(0, "kind", 0, 3)


def nothing_runs(directory: Path) -> System:
    """A system without any job, log or process."""
    place: Any = SimpleNamespace(
        ground=SimpleNamespace(job_dir=directory), seen=lambda path: path, broker=SimpleNamespace(ctl=None)
    )
    proxy = Proxy("127.0.0.1", 1, ("127.0.0.1", 1))
    return System(
        place=place,
        wms=cast("Any", None),
        user=cast("Any", None),
        tms=TmsKeeper([], {}, directory / "tms.log"),
        schedd=cast("Any", None),
        broker_proxy=proxy,
        wms_proxy=proxy,
        clock_file=directory / "clock",
        marker=f"nobody-has-this-{directory}",
        say=lambda _text: None,
    )


@pytest.mark.parametrize(
    "act",
    [
        acts_jobs.signal_pilot(signal.SIGKILL),
        acts_jobs.kill_launcher,
        acts_jobs.signal_tms(signal.SIGKILL, tms=True, helpers=False),
        acts_jobs.signal_tms(signal.SIGKILL, tms=False, helpers=True),
        acts_jobs.signal_daemons("a daemon that nobody has", signal.SIGSTOP),
        acts_files.torn_log,
        acts_files.truncated_log,
        acts_files.replaced_log,
        acts_broker.close_connections(None),
        acts_broker.close_channels(one=True),
        acts_network.to_broker("reset"),
        acts_network.to_wms("reset"),
    ],
)
async def test_without_anything_to_act_on_it_is_not_done(act: Act, tmp_path: Path) -> None:
    system = nothing_runs(tmp_path)
    with pytest.raises(NotDone):
        async with act(system, TIMED):
            pass
    assert system.harms == []


async def test_no_more_workflows_than_enough_are_requested(tmp_path: Path) -> None:
    system = nothing_runs(tmp_path)
    system.jobs += [Job(cast("Any", None), 1, "", is_base=False) for _ in range(2)]
    with pytest.raises(NotDone, match="enough workflows"):
        async with acts_wms.start(system, TIMED):
            pass


async def test_a_connection_that_is_there_is_reset(tmp_path: Path) -> None:
    system = nothing_runs(tmp_path)

    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in stream:
                await stream.send_all(chunk)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_proxy("127.0.0.1", port) as proxy:
            system.wms_proxy = proxy
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
                await stream.send_all(b"here")
                assert await stream.receive_some() == b"here"
                async with acts_network.to_wms("reset")(system, TIMED):
                    with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
                        await stream.receive_some()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("make", "expected", "noted"),
    [
        (lambda: acts_jobs.kill_launcher, {}, {"kind: no launcher": 1}),
        (lambda: acts_jobs.step_clock, {"kind": 1}, {}),
    ],
    ids=["nothing-there", "done"],
)
async def test_only_what_was_done_is_counted(
    make: Callable[[], Act], expected: dict[str, int], noted: dict[str, int], tmp_path: Path
) -> None:
    system = nothing_runs(tmp_path)
    kind = Kind("kind", make(), Heals.PILOTS)
    plan = Plan(ground="embedded", seed=1, minutes=0, schedule=[TIMED], kinds={"kind": kind})
    run = Run(plan, system.place, tmp_path, system, Monitor(system, {}), {})
    await run.play()
    assert (run.faults, system.notes) == (expected, noted)
    assert run.recoveries.keys() == expected.keys()


def test_the_log_is_harmed_as_long_as_the_fault_lasts(tmp_path: Path) -> None:
    system = nothing_runs(tmp_path)
    with system.harming_log():
        (harm,) = system.harms
        assert harm.end == float("inf")
    assert harm.begin <= harm.end < float("inf")
