"""Taskforces that run already when a TMS starts: what the WMS, the ledger and the schedd know of them."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import trio
from tms_virtual import World

from ewms.testing.fakeschedd import FakeCluster
from ewms.testing.wms.phases import Document
from ewms.tms.entries import Entry


def introduce(world: World, log: Path, clusters: Mapping[str, int], *, workers: int) -> None:
    """Let all know these running taskforces (UUID → cluster id), whose log is, or will be, at a path."""
    state, schedd, ledger = world.bench.standin.state, world.bench.schedd, world.ctx.ledger
    if not clusters:
        return
    pattern = document(world, world.bench.order(n_workers=workers))
    workflow = state.workflow(pattern["workflow_id"])
    state.store.save([("taskforces", {**pattern, "phase": "condor-complete"})])
    now = time.time()
    for uuid, cluster_id in clusters.items():
        # Each of a workflow of its own: who stops one stops no other.
        ids = {"taskforce_uuid": uuid, "workflow_id": f"WF-{uuid}"}
        there = {"phase": "condor-submit", "cluster_id": cluster_id, "job_event_log_fpath": str(log)}
        state.store.save(
            [
                ("workflows", {**workflow, "workflow_id": ids["workflow_id"]}),
                ("taskforces", {**pattern, **ids, **there}),
            ]
        )
        ledger.write_now(
            Entry(
                taskforce_uuid=uuid,
                log_path=str(log),
                n_workers=workers,
                intended_at=now,
                cluster_id=cluster_id,
                confirmed_at=now,
            )
        )
        schedd.clusters[cluster_id] = FakeCluster(cluster_id, uuid, {"log": str(log)}, workers)
        schedd.next_cluster_id = max(schedd.next_cluster_id, cluster_id + 1)


def document(world: World, uuid: str) -> Document:
    """A taskforce as the WMS has it."""
    return world.bench.standin.state.taskforce_document(uuid)


async def until(condition: Callable[[], bool], every: float = 0.002) -> None:
    """Wait, asking every so many s."""
    while not condition():  # noqa: ASYNC110  nothing tells of a change at the stand-in
        await trio.sleep(every)
