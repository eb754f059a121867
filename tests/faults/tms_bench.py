"""A whole TMS against the WMS stand-in over HTTP and a schedd in memory; a run can be ended and begun again."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from ewms.testing.fakeschedd import FakeSchedd
from ewms.testing.wms import Standin
from ewms.testing.wms.schema import WorkflowRequest, structure
from ewms.tms.board import Board
from ewms.tms.context import Context
from ewms.tms.exclusions import load
from ewms.tms.ledger import Ledger
from ewms.tms.outbox import Outbox
from ewms.tms.service import serve
from ewms.tms.settings import Settings
from ewms.wms.client import open_wms
from ewms.wms.models import Taskforce
from ewms.wms.retry import Retry

SCHEDD = "ap.example.org"
WORKER = {
    "do_transfer_worker_stdouterr": True,
    "max_worker_runtime": 600,
    "n_cores": 1,
    "priority": 50,
    "worker_disk": "1 GB",
    "worker_memory": "512M",
    "condor_requirements": "",
}
PILOT = {"tag": "1.0", "image_source": "cvmfs", "environment": {}, "input_files": []}


@attrs.frozen
class Bench:
    standin: Standin
    schedd: FakeSchedd
    settings: Settings

    def order(
        self, *, n_workers: int = 2, priority: int = 50, input_files: Sequence[str] = (), **worker_config: Any
    ) -> str:
        """A user's request, launched: the UUID of its taskforce."""
        task = {
            "cluster_locations": ["here"],
            "input_queue_aliases": ["in"],
            "output_queue_aliases": ["out"],
            "task_image": "/images/task:1",
            "task_args": "",
            "n_workers": n_workers,
            "pilot_config": PILOT | {"input_files": list(input_files)},
            "worker_config": WORKER | worker_config,
        }
        request = {"public_queue_aliases": ["in", "out"], "tasks": [task], "priority": priority}
        made = self.standin.state.create_workflow(structure(WorkflowRequest, request))
        self.standin.state.activate(made["workflow"]["workflow_id"])
        self.standin.state.launch(made["workflow"]["workflow_id"])
        return str(made["taskforces"][0]["taskforce_uuid"])

    def stop(self, uuid: str) -> None:
        """The user's finish."""
        self.standin.state.deactivate(self.taskforce(uuid).workflow_id, "FINISHED")

    def taskforce(self, uuid: str) -> Taskforce:
        return self.standin.state.taskforce(uuid)

    def posts(self, uuid: str = "") -> list[str]:
        """The TMS's POSTs so far about one taskforce, and the batches: `condor-submit`, `statuses`, …"""
        called = [path.removeprefix("/v1/tms/") for method, path in self.standin.called("/v1/tms/") if method == "POST"]
        named = [
            path.replace(f"/taskforces/{uuid}", "") for path in called if uuid in path or path.startswith("statuses")
        ]
        return [path.replace("statuses/taskforces", "statuses") for path in named]

    @asynccontextmanager
    async def tms(
        self, prepare: Callable[[Context], None] = lambda ctx: None, *, address: str = "", patience: float = 30
    ) -> AsyncIterator[Context]:
        """One run of the TMS, which finds what `prepare` left; leaving is what a signal does.

        `address` is the stand-in's as the TMS knows it, `patience` (s) that with each single call.
        """
        retry = Retry(first=0.02, cap=0.05)
        async with open_wms(address or self.standin.address, None, timeout=patience, retry=retry) as wms:
            ledger = Ledger(self.settings.state_dir / "ledger")
            outbox, excluded = Outbox(wms, ledger), load(self.settings)
            ctx = Context(self.settings, SCHEDD, wms, self.schedd, ledger, outbox, Board(), exclusions=excluded)
            prepare(ctx)
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, ctx)
                yield ctx
                nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait, at most 60 s (a busy machine), until it holds."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110  nothing tells of a change at the stand-in
            await trio.sleep(0.01)
