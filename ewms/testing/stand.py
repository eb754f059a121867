"""A whole EWMS on one machine: a WMS stand-in, a TMS process, and a ground to submit to; and a user to ask for work."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import httpx
import trio

from ewms.secret import Secret
from ewms.testing.grounds import SCHEDD_NAME, Ground
from ewms.testing.wms import Standin, open_standin

LOCATION: Final = "here"
"""The cluster location that a workflow asks for; the stand-in knows which schedd it means."""

_TMS_END_GRACE_S: Final = 20


@attrs.frozen(kw_only=True)
class WorkflowRequest:
    """What a user asks for: one task on one queue pair."""

    task_image: str
    task_args: str
    n_workers: int
    pilot_config: Mapping[str, Any]
    worker_config: Mapping[str, Any] = attrs.field(factory=dict)

    def body(self) -> dict[str, Any]:
        """The body of `POST /v1/workflows`."""
        worker_config = {
            "do_transfer_worker_stdouterr": True,
            "max_worker_runtime": 3600,
            "n_cores": 1,
            "priority": 50,
            "worker_disk": "100 MB",
            "worker_memory": "256 MB",
            "condor_requirements": "",
            **self.worker_config,
        }
        return {
            "public_queue_aliases": ["in", "out"],
            "tasks": [
                {
                    "cluster_locations": [LOCATION],
                    "input_queue_aliases": ["in"],
                    "output_queue_aliases": ["out"],
                    "task_image": self.task_image,
                    "task_args": self.task_args,
                    "n_workers": self.n_workers,
                    "pilot_config": dict(self.pilot_config),
                    "worker_config": worker_config,
                }
            ],
        }


@attrs.frozen
class Workflow:
    """A workflow that the WMS accepted."""

    workflow_id: str
    taskforce_uuid: str
    queue_in: str
    queue_out: str


@attrs.frozen
class User:
    """Somebody who is logged in to the WMS."""

    _http: httpx.AsyncClient

    async def request(self, request: WorkflowRequest) -> Workflow:
        """`POST /v1/workflows`."""
        answer = await self.call("POST", "/v1/workflows", request.body())
        (directive,) = answer["task_directives"]
        (taskforce,) = answer["taskforces"]
        return Workflow(
            workflow_id=answer["workflow"]["workflow_id"],
            taskforce_uuid=taskforce["taskforce_uuid"],
            queue_in=directive["input_queues"][0],
            queue_out=directive["output_queues"][0],
        )

    async def taskforce(self, workflow: Workflow) -> dict[str, Any]:
        """The taskforce as the WMS knows it now."""
        query = {"query": {"taskforce_uuid": workflow.taskforce_uuid}, "projection": []}
        answer = await self.call("POST", "/v1/query/taskforces", query)
        (taskforce,) = answer["taskforces"]
        return dict(taskforce)

    async def finish(self, workflow: Workflow) -> None:
        """Ask for the stop: `POST /v1/workflows/ID/actions/finished`."""
        await self.call("POST", f"/v1/workflows/{workflow.workflow_id}/actions/finished", {})

    async def call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """One call of the user's REST API."""
        response = await self._http.request(method, path, json=body)
        response.raise_for_status()
        return dict(response.json())


class WmsAccess(Protocol):
    """What a TMS has to know of its WMS."""

    @property
    def address(self) -> str:
        """For `EWMS_ADDRESS`."""

    @property
    def token_url(self) -> str:
        """For `EWMS_TOKEN_URL`."""

    @property
    def client_id(self) -> str:
        """For `EWMS_CLIENT_ID`."""

    @property
    def client_secret(self) -> Secret:
        """For `EWMS_CLIENT_SECRET`."""


def tms_environment(ground: Ground, wms: WmsAccess, **settings: str) -> dict[str, str]:
    """The settings of a TMS on that ground."""
    return {
        "EWMS_ADDRESS": wms.address,
        "EWMS_TOKEN_URL": wms.token_url,
        "EWMS_CLIENT_ID": wms.client_id,
        "EWMS_CLIENT_SECRET": wms.client_secret.reveal(),
        "JOB_EVENT_LOG_DIR": str(ground.job_dir),
        "TMS_SCHEDD_NAME": SCHEDD_NAME,
        "TMS_OUTER_LOOP_WAIT": "0.5",
        "TMS_WATCHER_INTERVAL": "0.5",
        "TMS_SETTLE_TIME": "15",
        "LOG_LEVEL": "DEBUG",
        **ground.tms_settings,
        **settings,
    }


@attrs.frozen
class Stand(User):
    """The whole system, running; the user's calls to it."""

    ground: Ground
    wms: Standin
    work_dir: Path

    @asynccontextmanager
    async def tms(self, **settings: str) -> AsyncIterator[trio.Process]:
        """A TMS process while the context lasts; leaving it is a clean SIGTERM, which leaves clusters alone."""
        environment = {"PATH": os.defpath, **tms_environment(self.ground, self.wms, **settings)}
        command = self.ground.command([self.ground.python, "-m", "ewms", "tms"])
        with (self.work_dir / "tms.log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            with trio.move_on_after(_TMS_END_GRACE_S, shield=True):
                process.send_signal(signal.SIGTERM)
                await process.wait()
            process.kill()


@asynccontextmanager
async def open_stand(ground: Ground, work_dir: Path) -> AsyncIterator[Stand]:
    """A WMS stand-in that hands out `ground`'s queues, and a user who is logged in to it."""
    async with (
        open_standin(
            broker_type=ground.broker_type,
            broker_address=ground.broker_address,
            broker_token=ground.broker_token,
            locations={LOCATION: SCHEDD_NAME},
        ) as wms,
        httpx.AsyncClient(base_url=wms.address, timeout=30) as user,
    ):
        user.headers["Authorization"] = f"Bearer {wms.user_token()}"
        yield Stand(user, ground, wms, work_dir)
