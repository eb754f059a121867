"""What systemd, Prometheus and `/healthz` see of a whole TMS, and that housekeeping is part of it."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from test_tms_service import Ground, ground, process
from tms_bench import Bench, until

from ewms.liveness import Pulse
from ewms.tms.condor.base import CondorUnreachable
from ewms.tms.inside import Inside, status_line
from ewms.tms.outbox import Outbox
from ewms.tms.service import main
from ewms.tms.settings import read
from ewms.wms.errors import WMSNotFound, WMSUnauthorized, WMSUnavailable

__all__ = ["ground"]  # a fixture


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def notify_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        yield listener


async def hear(listener: socket.socket, messages: list[str]) -> None:
    """As systemd does, take every message at once: the kernel keeps only some ten of them."""
    listening = trio.socket.from_stdlib_socket(listener)
    while True:
        messages.append((await listening.recv(4096)).decode())


def samples(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def fetch(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{port}{path}")


async def test_a_life_under_systemd_with_metrics(ground: Ground, tmp_path: Path, nursery: trio.Nursery) -> None:
    port = free_port()
    uuid = ground.bench.order(n_workers=2)
    said: list[str] = []
    with notify_socket(tmp_path / "notify") as listener:
        nursery.start_soon(hear, listener, said)
        settings = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "300000",
            "TMS_METRICS_PORT": str(port),
        }
        async with process(ground, tmp_path / "tms.log", **settings) as running:
            await until(lambda: ground.bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
            health = await fetch(port, "/healthz")
            assert health.status_code == 200
            assert health.json() | {"status": ""} == {"healthy": True, "ready": True, "stuck": {}, "status": ""}
            found = samples((await fetch(port, "/metrics")).text)
            # systemd hears of it with the next ping of the watchdog, a moment after the WMS has
            await until(lambda: "jobs: 2 RUNNING" in said[-1])
            running.terminate()
            with trio.fail_after(60):
                assert await running.wait() == 0
        await until(lambda: said[-1].startswith("STOPPING=1"))
        nursery.cancel_scope.cancel()
    assert said[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert [message.partition("\n")[0] for message in said].count("READY=1") == 1
    assert said[-2].startswith("WATCHDOG=1\nSTATUS=taskforces: 1 open; jobs: 2 RUNNING")
    assert said[-1] == "STOPPING=1\nSTATUS=stopping"
    assert found["ewms_tms_orders_total{start}"] == 1
    assert found["ewms_tms_submits_total{submitted}"] == 1
    assert found["ewms_tms_jobs{RUNNING}"] == 2
    assert found["ewms_tms_taskforces{open}"] == 1
    assert found["ewms_tms_wms_seconds_count{POST /tms/condor-submit/taskforces/UUID,ok}"] == 1
    assert found["ewms_tms_schedd_seconds_count{submit,ok}"] == 1
    assert found["ewms_tms_report_lag_seconds{}"] < 60


async def test_a_full_house_is_kept_and_what_lives_is_left_alone(ground: Ground, tmp_path: Path) -> None:
    job_dir = ground.bench.settings.job_dir
    uuid = ground.bench.order(n_workers=1)
    async with process(ground, tmp_path / "tms.log"):
        await until(lambda: ground.bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
    long_ago = time.time() - 30 * 86400
    gone = job_dir / "ewms-taskforce-TF-GONE"
    gone.mkdir()
    (gone / "ewms_htcondor_envfile.sh").write_text("export TOKEN=SECRET")
    old_log = job_dir / "2026-01-01.tms.jel"
    old_log.write_text("000 (999.000.000) 2026-01-01 10:00:00 Job submitted from host: <1.2.3.4:5>\n...\n")
    living = job_dir / f"ewms-taskforce-{uuid}"
    for path in (gone / "ewms_htcondor_envfile.sh", gone, old_log, *living.iterdir(), living):
        os.utime(path, (long_ago, long_ago))
    async with process(ground, tmp_path / "tms.log"):
        await until(lambda: not gone.exists() and not old_log.exists())
        assert (job_dir / "ewms-taskforce-TF-GONE.tar.gz").exists()
        assert (job_dir / "2026-01-01.tms.jel.gz").exists()
        assert (living / "ewms_htcondor_envfile.sh").exists()


async def test_without_a_port_and_systemd_it_runs_all_the_same(ground: Ground) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(main, read(ground.environ)))
        nursery.cancel_scope.cancel()


async def test_a_taken_port_does_not_keep_the_tms_from_its_work(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environ = ground.environ | {"TMS_METRICS_PORT": str(taken.getsockname()[1])}
        uuid = ground.bench.order()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(main, read(environ)))
            await until(lambda: ground.bench.taskforce(uuid).compound_statuses.keys() == {"RUNNING"})
            nursery.cancel_scope.cancel()
    errors = {str(getattr(record, "error", "")) for record in caplog.records}
    assert any(f"port {environ['TMS_METRICS_PORT']} on 127.0.0.1: " in error for error in errors)


async def test_every_child_of_a_tms_shows_life(bench: Bench) -> None:
    async with bench.tms() as ctx:
        bench.order()
        await until(lambda: bool(bench.posts()) and "report" in ctx.pulse.names() and "audit" in ctx.pulse.names())
        logs = {f"watch {path.name}" for path in bench.settings.job_dir.glob("*.tms.jel")}
        assert len(logs) == 1
        await until(lambda: logs <= ctx.pulse.names())
        own = {"audit", "housekeeping", "refused ends", "report", "review", "starts", "stops", "watch"}
        assert ctx.pulse.names() == own | logs
        assert ctx.pulse.stuck() == {}


def health(inside: Inside) -> tuple[int, dict[str, Any]]:
    page = inside.pages("/healthz")
    assert page is not None
    return page.status, json.loads(page.body)


async def test_health_while_starting_and_when_a_child_is_stuck(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inside = Inside(pulse=Pulse(10))
    assert health(inside) == (503, {"healthy": False, "ready": False, "stuck": {}, "status": "starting"})
    inside.is_ready.set()
    assert health(inside)[0] == 200
    with inside.pulse.child("orders"):
        await trio.sleep(11)
        assert health(inside) == (503, {"healthy": False, "ready": True, "stuck": {"orders": 11}, "status": "starting"})
        page = inside.pages("/metrics")
        assert page is not None
        assert b'ewms_tms_stuck{child="orders"} 11' in page.body
    assert inside.pages("/other") is None


async def test_whom_it_waits_for_is_in_its_status(autojump_clock: trio.testing.MockClock) -> None:
    inside = Inside()
    inside.is_ready.set()
    inside.observe_wms("GET /taskforces/TF-1", WMSUnauthorized, 0.1)
    await trio.sleep(40)
    inside.observe_wms("GET /taskforces/TF-1", WMSUnavailable, 0.1)
    inside.observe_schedd("query", CondorUnreachable, 0.1)
    assert inside.status_now() == "the WMS does not answer (for 40 s); the schedd does not answer (for 0 s); starting"
    inside.observe_wms("GET /taskforces/TF-1", WMSNotFound, 0.1)  # which is an answer
    inside.observe_schedd("query", None, 0.1)
    assert inside.status_now() == "starting"


async def test_what_is_not_known_yet_is_not_said_to_be_none(bench: Bench) -> None:
    async with bench.tms() as ctx:
        inside = Inside()
        await ctx.caught_up.wait()
        inside.show(attrs.evolve(ctx, outbox=Outbox(ctx.wms, ctx.ledger)))
        assert inside.status_now() == "learns from the WMS what is open; so far taskforces: none"
        inside.show(attrs.evolve(ctx, caught_up=trio.Event()))
        assert inside.status_now().startswith("reads the logs first; so far taskforces: ")


def test_the_status_line() -> None:
    assert status_line({}, {}) == "taskforces: none"
    assert (
        status_line({"open": 2, "starting": 1}, {"RUNNING": 5, "HELD": 1})
        == "taskforces: 2 open, 1 starting; jobs: 1 HELD, 5 RUNNING"
    )
