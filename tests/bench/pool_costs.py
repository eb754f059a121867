"""What HTCondor's daemons at an access point need for workers: shadows' memory and processor, the schedd's processor.

Workers of weeks are jobs of a fraction of a second here: what is counted is what a run needs however long it is, from
its submit to its end in the history. What a pilot that works needs besides, a line in the log now and then, is counted
by itself.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import chirping
import trio
from endtoend_runs import Case, Ways, description, occurrences
from processes import descendants

from ewms.testing.pool import Pool

SLOTS = 30
RUNS = 240
LINES = 2_000
"""A pilot's, in its log."""
REST = 10.0
"""Seconds after the last of them began, for shadows to come to rest."""
PATIENCE_S = 600.0

CONFIG: Final = """
# A worker has its machine for hours: neither its claim nor its shadow has time for another one.
CLAIM_WORKLIFE = 0
SHADOW_WORKLIFE = 0
# As they are by default; a pool for tests has them often.
SCHEDD_INTERVAL = 300
PERIODIC_EXPR_INTERVAL = 60
MAX_PERIODIC_EXPR_INTERVAL = 1200
STARTER_UPDATE_INTERVAL = 300
UPDATE_INTERVAL = 300
NEGOTIATOR_INTERVAL = 5
NEGOTIATOR_CYCLE_DELAY = 5
"""


def costs(pool: Pool, directory: Path) -> dict[str, float]:
    """One run of everything."""
    return {**_chirps(pool), **_memory(pool), **_runs(pool, directory)}


def _runs(pool: Pool, directory: Path) -> dict[str, float]:
    """Processor of the schedd, and of its shadows, which are its children, for a run; s."""
    (schedd,) = descendants("condor_schedd")
    shadows, before = _shadows_started(pool), schedd.cpu_times()
    Ways(pool, directory).plain_jobs(Case(tasks=RUNS, slots=SLOTS, bundle=1))
    _until(lambda: not descendants("condor_shadow"))
    _until(lambda: not _queued(pool))
    after, shadows = schedd.cpu_times(), _shadows_started(pool) - shadows
    if shadows != RUNS:
        raise RuntimeError(f"{shadows} shadows for {RUNS} runs")
    return {
        "schedd_cpu": (after.user + after.system - before.user - before.system) / RUNS,
        "shadow_cpu": (after.children_user + after.children_system - before.children_user - before.children_system)
        / RUNS,
    }


def _memory(pool: Pool) -> dict[str, float]:
    """Bytes of a shadow whose job runs: that are its own, and with its part of what all of them share."""
    log = pool.job_dir / "sleepers.log"
    with _submitted(pool, description(pool, "exec sleep 3600", log, SLOTS)):
        _until(lambda: occurrences(log, "001") == SLOTS)
        time.sleep(REST)
        used = [shadow.memory_full_info() for shadow in descendants("condor_shadow")]
    return {
        "shadow_memory": sum(each.uss for each in used) / len(used),
        "shadow_memory_with_its_part": sum(each.pss for each in used) / len(used),
    }


def _chirps(pool: Pool) -> dict[str, float]:
    """Processor of a shadow for a line that its pilot writes into the log; s."""
    log = pool.job_dir / "chirping.log"
    program = pool.job_dir / "chirping.py"
    shutil.copy(chirping.__file__, program)
    with _submitted(pool, _chirping(pool, program, log)):
        _until(lambda: occurrences(log, "008") > 0)
        (shadow,) = descendants("condor_shadow")
        before, first = shadow.cpu_times(), occurrences(log, "008")
        _until(lambda: occurrences(log, "008") == LINES)
        after = shadow.cpu_times()
    return {"chirp_shadow_cpu": (after.user + after.system - before.user - before.system) / (LINES - first)}


def _chirping(pool: Pool, program: Path, log: Path) -> str:
    lines = (
        "universe = vanilla",
        f"executable = {pool.python}",
        "transfer_executable = false",
        f"arguments = {program.name} {LINES}",
        f"transfer_input_files = {program}",
        "should_transfer_files = YES",
        'transfer_output_files = ""',
        "+WantIOProxy = true",
        f"log = {log}",
        "request_cpus = 1",
        "request_memory = 256 MB",
        "request_disk = 100 MB",
        "queue",
    )
    return "\n".join(lines) + "\n"


@contextmanager
def _submitted(pool: Pool, text: str) -> Iterator[None]:
    """Until it is left, the jobs are in the queue; then their shadows are gone."""
    submitted = _said(pool, "condor_submit", "-terse", "-", stdin=text)
    try:
        yield
    finally:
        _said(pool, "condor_rm", submitted.partition(".")[0])
        _until(lambda: not descendants("condor_shadow"))
        for log in pool.job_dir.glob("*.log"):
            log.unlink()


def _queued(pool: Pool) -> str:
    return _said(pool, "condor_q", "-allusers", "-af", "ClusterId")


def _shadows_started(pool: Pool) -> int:
    """As they themselves say."""
    log = pool.logs / "condor" / "ShadowLog"
    return log.read_bytes().count(b" STARTING UP") if log.exists() else 0


def _said(pool: Pool, *words: str, stdin: str = "") -> str:
    async def run() -> str:
        return (await pool.run(words, stdin=stdin.encode(), cwd=str(pool.job_dir))).stdout.decode()

    return trio.run(run)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the pool does not go on")
        time.sleep(0.5)
