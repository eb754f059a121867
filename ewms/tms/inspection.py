"""What is looked at before a submit, and cannot be judged by the order alone: its input files, and its expressions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from ewms.tms.condor.base import Schedd
from ewms.tms.errors import OrderRefused
from ewms.tms.expressions import check_expressions
from ewms.tms.inputfiles import check_input_files
from ewms.tms.inputnames import Closed
from ewms.tms.submission import Submission
from ewms.wms.models import StartOrder

PATIENCE: Final = 30.0
"""With the file systems of an order's input files, in s: others wait for their starts meanwhile."""
_LOOKS: Final = 4
"""At a time. One that hangs keeps its thread for as long as its file system is gone, and others need threads, too."""
_KEPT: Final = (("SPOOL", ""), ("EXECUTE", "dir_"))
"""Settings of HTCondor's, and how names of jobs' directories begin there: other things may be beside them."""
_limiter: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("looks at input files")


async def inspect_submission(schedd: Schedd, order: StartOrder, submission: Submission, job_dir: Path) -> None:
    """Find what HTCondor would find too late, or not at all.

    Raises:
        OrderRefused: with the reason.
        CondorUnreachable: HTCondor does not answer.
    """
    if order.taskforce.pilot_config.input_files:
        await _look_at(order.taskforce.pilot_config.input_files, job_dir, await _other_jobs(schedd))
    await check_expressions(schedd, submission)


async def _other_jobs(schedd: Schedd) -> list[Closed]:
    """Where HTCondor keeps what evicted jobs sent, and what running ones have, should they run on this machine."""
    found = [(await schedd.param(name), begins) for name, begins in _KEPT]
    return [Closed(place, "other jobs' files", begins) for place, begins in found if place and place.startswith("/")]


async def _look_at(paths: Sequence[str], job_dir: Path, others: Sequence[Closed]) -> None:
    with trio.move_on_after(PATIENCE):
        await trio.to_thread.run_sync(
            check_input_files, paths, job_dir, others, abandon_on_cancel=True, limiter=_own_threads()
        )
        return
    raise OrderRefused(
        f"pilot_config.input_files: the file system of one of them does not answer within {PATIENCE:g} s"
    )


def _own_threads() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_LOOKS)
        _limiter.set(limiter)
        return limiter
