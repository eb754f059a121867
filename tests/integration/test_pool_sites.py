"""Where pilots fail, on a real pool: machines that say their site, the pilots' chirps, metrics, `ewms log --sites`."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from asking import DEADLINE_S, request, until

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import Stand, open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

SITE = "Far Away Lab"
CONFIG = "/etc/condor/config.d/90-site"


@asynccontextmanager
async def site_named(pool: "Pool") -> AsyncIterator[None]:
    """The pool's machine says where it is, as a glidein does."""
    told = f'GLIDEIN_Site = "{SITE}"\nSTARTD_ATTRS = $(STARTD_ATTRS) GLIDEIN_Site\n'
    await pool.run(["tee", CONFIG], user="root", stdin=told.encode())
    try:
        await pool.run(["condor_reconfig"], user="root")
        await advertised(pool, SITE)
        yield
    finally:
        with trio.move_on_after(30, shield=True):
            await pool.run(["rm", CONFIG], user="root")
            await pool.run(["condor_reconfig"], user="root")


async def advertised(pool: "Pool", site: str) -> None:
    with trio.fail_after(DEADLINE_S):
        while True:
            slots = await pool.run(["condor_status", "-af", "GLIDEIN_Site"])
            if {line.decode() for line in slots.stdout.splitlines()} == {site}:
                return
            await trio.sleep(0.5)


async def test_failures_are_told_by_site_and_host_also_after_a_restart(pool: "Pool", work_dir: Path) -> None:
    ground = pool_ground(pool, pool.job_dir.parent)
    # A job directory of its own: what other tests' pilots did on this machine must not count.
    jobs = pool.job_dir.parent / "jobs-of-sites"
    await pool.run(["install", "--directory", "--owner=ewms", str(jobs)], user="root")
    async with site_named(pool), open_stand(ground, work_dir) as stand:
        async with stand.tms(JOB_EVENT_LOG_DIR=str(jobs)):
            workflow = await stand.request(request(ground, "sh -c 'exit 3'", workers=2))
            await ground.queues.put(workflow.queue_in, ["one", "two"])
            await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")
        (log,) = jobs.glob("*.tms.jel")
        told = await sites_of(pool, ground, log)
        host = (await pool.run(["condor_status", "-af", "Machine", "-limit", "1"])).stdout.decode().strip()
        assert told["sites"][SITE] == {**told["sites"][SITE], "runs": 2, "failures": 2, "quick_deaths": 2}
        assert told["hosts"][host]["site"] == SITE
        port = free_port()
        async with stand.tms(JOB_EVENT_LOG_DIR=str(jobs), TMS_METRICS_PORT=str(port)):
            metrics = await metrics_with(stand, port, f'ewms_tms_site_failures{{site="{SITE}"}} 2.0')
            assert f'ewms_tms_site_runs{{site="{SITE}"}} 2.0' in metrics


async def sites_of(pool: "Pool", ground: Ground, log: Path) -> dict[str, Any]:
    """What `ewms log --sites --json` says."""
    done = await pool.run([ground.python, "-m", "ewms", "log", "--sites", "--json", str(log)])
    return dict(json.loads(done.stdout))


async def metrics_with(stand: Stand, port: int, line: str) -> str:
    text = ""
    async with httpx.AsyncClient(trust_env=False) as http:
        with trio.move_on_after(DEADLINE_S):
            while True:
                with suppress(httpx.TransportError):
                    text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                if line in text:
                    return text
                await trio.sleep(0.2)
    pytest.fail(f"no {line} in the metrics:\n{text}\n{(stand.work_dir / 'tms.log').read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
