"""Faults of the WMS, and what its users order."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from tests.chaos.kinds import Act
from tests.chaos.schedule import Timed
from tests.chaos.system import NotDone, System

_TMS_PATHS: Final = ("/v1/tms/*", "/v1/taskforces/*", "/auth/*")
_STARTS: Final = "/v1/tms/pending-starter/*"
_STOPS: Final = "/v1/tms/pending-stopper/*"
_MOST_EXTRA: Final = 2
"""Jobs beside the base jobs at a time."""
_EXTRA_EVENTS: Final = 40


def fails(**what: Any) -> Act:
    """All calls of the TMS fail so, for a time."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        for path in _TMS_PATHS:
            await system.wms.fault(path=path, **what)
        yield
        await system.wms.clear()

    return act


@asynccontextmanager
async def loses_answers(system: System, fault: Timed) -> AsyncIterator[None]:
    """The WMS acts, and cuts the connection instead of answering; three times."""
    await system.wms.fault(path="/v1/tms/*", method="POST", drop=True, after=True, count=3)
    yield
    await system.wms.clear()


@asynccontextmanager
async def gone(system: System, fault: Timed) -> AsyncIterator[None]:
    """kill -9 of the WMS, which is started again after a time and goes on from its file; all tokens are void then."""
    await system.wms.kill()
    yield
    await system.wms.start()


@asynccontextmanager
async def revoke(system: System, fault: Timed) -> AsyncIterator[None]:
    """No token is good any more."""
    await system.wms.revoke()
    yield


@asynccontextmanager
async def lies(system: System, fault: Timed) -> AsyncIterator[None]:
    """Answers that the contract does not know, or that are true no more; some times one after the other."""
    lies = _lies(system)
    await system.wms.fault(**lies[fault.draw % len(lies)], count=3)
    yield
    await system.wms.clear()


def _lies(system: System) -> list[Mapping[str, Any]]:
    living = next((job for job in system.base if job.order), None)
    shapes = ("[]", "null", '"nothing"', "<html>try later</html>", '{"taskforce": {"taskforce_uu')
    found: list[Mapping[str, Any]] = [{"path": path, "answer": shape} for path in (_STARTS, _STOPS) for shape in shapes]
    found += [{"path": "/v1/tms/statuses/*", "answer": answer} for answer in ("[]", "oops", '{"results": 7}')]
    found += [{"path": "/v1/tms/statuses/*", "answer": "{}", "status": 207}]
    if living is not None:
        order = json.loads(living.order)
        taskforce = order["taskforce"]
        found += [
            {"path": _STARTS, "answer": living.order},
            {"path": _STARTS, "answer": _with(order, "taskforce", phase="sabbatical")},
            {
                "path": _STARTS,
                "answer": _with(order, "taskforce", taskforce_uuid="TF-nobody-knows-1", n_workers="many"),
            },
            # Somebody else's stop order with the number of our cluster.
            {
                "path": _STOPS,
                "answer": json.dumps({**taskforce, "taskforce_uuid": "TF-nobody-knows-2", "cluster_id": 1}),
            },
            {"path": "/v1/taskforces/*", "answer": json.dumps({**taskforce, "phase": "sabbatical"})},
        ]
    return found


def _with(order: dict[str, Any], key: str, **changes: object) -> str:
    return json.dumps({**order, key: {**order[key], **changes}})


# --- orders ---


@asynccontextmanager
async def start(system: System, fault: Timed) -> AsyncIterator[None]:
    """A user requests another workflow, unless there are some already."""
    if len([job for job in system.jobs if not job.is_base and not job.is_stopped]) >= _MOST_EXTRA:
        raise NotDone("enough workflows")
    await system.request(n_workers=1, n_events=_EXTRA_EVENTS)
    yield


@asynccontextmanager
async def stop(system: System, fault: Timed) -> AsyncIterator[None]:
    """A user finishes a workflow, wherever it is."""
    running = [job for job in system.jobs if not job.is_base and not job.is_stopped]
    job = running[fault.draw % len(running)] if running else await system.request(1, _EXTRA_EVENTS)
    job.is_withdrawn = (await system.user.taskforce(job.workflow))["cluster_id"] is None
    await system.stop(job)
    yield


@asynccontextmanager
async def withdraw(system: System, fault: Timed) -> AsyncIterator[None]:
    """A user requests a workflow and aborts it at once, or a moment later: before, while, or after it is started."""
    job = await system.request(n_workers=1, n_events=1)
    await trio.sleep(fault.draw % 20 / 20)
    job.is_stopped = job.is_withdrawn = True
    job.interruptions += job.n_workers
    await system.user.call("POST", f"/v1/workflows/{job.workflow.workflow_id}/actions/abort", {})
    yield
