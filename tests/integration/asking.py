"""A user who asks the WMS for work and watches what becomes of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import trio

from ewms.testing.grounds import Ground
from ewms.testing.stand import Stand, Workflow, WorkflowRequest

DEADLINE_S: Final = 120


def request(ground: Ground, args: str, *, workers: int = 2, **environment: str | int) -> WorkflowRequest:
    """One task with these arguments, its pilots with these settings."""
    config = dict(ground.pilot_config)
    # By default tasks that run get nearly all of the vacate time to finish: ten minutes.
    config["environment"] = {**config["environment"], "EWMS_PILOT_STOP_GRACE": 1, **environment}
    return WorkflowRequest(task_image=ground.task_image, task_args=args, n_workers=workers, pilot_config=config)


async def until(
    stand: Stand, workflow: Workflow, wanted: Callable[[Mapping[str, Any]], bool], what: str
) -> dict[str, Any]:
    """Poll the WMS until the taskforce is as wanted; say what it was like when it never is."""
    taskforce: dict[str, Any] = {}
    with trio.move_on_after(DEADLINE_S):
        while True:
            taskforce = await stand.taskforce(workflow)
            if wanted(taskforce):
                return taskforce
            await trio.sleep(0.2)
    log = (stand.work_dir / "tms.log").read_text()[-3000:]
    pytest.fail(f"not {what} within {DEADLINE_S} s: {taskforce}\nthe TMS's log ends:\n{log}")


async def stopped(stand: Stand, workflow: Workflow) -> dict[str, Any]:
    """Ask for the stop and wait until the cluster is gone; the taskforce as it is then."""
    await stand.finish(workflow)
    return await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")
