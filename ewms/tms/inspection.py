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

PATIENCE: Final = 120.0
"""With the file systems of an order's input files, in s: others wait for their starts meanwhile."""
_LOOKS: Final = 32
"""At a time. One that hangs keeps its thread for as long as its file system is gone, and others need threads, too."""
_KEPT: Final = (("SPOOL", ("",)), ("EXECUTE", tuple(f"dir_{digit}" for digit in range(10))))
"""Settings of HTCondor's, and how names of jobs' directories begin there: other things may be beside them."""


class _Looks:
    """The looks of this process that are under way."""

    def __init__(self) -> None:
        self.limiter = trio.CapacityLimiter(_LOOKS)
        self.paths: set[tuple[str, ...]] = set()
        """At which they look; orders are looked at one by one, so one that is there already hangs."""


_looks: Final = trio.lowlevel.RunVar[_Looks]("looks at input files")


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
    looks, key = _own_looks(), tuple(paths)

    def look() -> None:
        looks.paths.add(key)
        try:
            check_input_files(paths, job_dir, others)
        finally:
            looks.paths.discard(key)

    # The same order comes again and again: each of its attempts would keep one more thread.
    if key not in looks.paths:
        with trio.move_on_after(PATIENCE):
            await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=looks.limiter)
            return
    raise OrderRefused(
        f"pilot_config.input_files: they were not looked through within {PATIENCE:g} s: "
        "a file system does not answer, or there are too many for it (an archive is one file)"
    )


def _own_looks() -> _Looks:
    try:
        return _looks.get()
    except LookupError:
        looks = _Looks()
        _looks.set(looks)
        return looks
