"""The same tasks on the same pool three ways: through EWMS, as one plain HTCondor job each, as jobs of many tasks."""

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.pool import Pool
from ewms.testing.stand import Stand, WorkflowRequest, open_stand

TASK_S = 0.2
PATIENCE_S = 3600
# One task, whose number is in $n: one in twenty fails where that is asked for.
_TASK = f"sleep {TASK_S}; test $((n % 20 * FAILS)) -ne 13"
_EVENT = re.compile(rb"^(\d{3}) \((\d+)\.(\d+)\.\d+\) (\S+ \S+)", re.MULTILINE)
_POLL_S = 0.2


@attrs.frozen(kw_only=True)
class Case:
    """What is run, and what happens to it."""

    tasks: int
    slots: int
    bundle: int
    """Tasks of one job, where a job has many."""
    fails: bool = False
    """One task in twenty fails, each time that it is tried."""
    kills: bool = False
    """A worker is evicted, without any time to finish, when half of the work is done."""

    @property
    def results(self) -> int:
        """Tasks that succeed."""
        return sum(number % 20 != 13 for number in range(self.tasks)) if self.fails else self.tasks

    def task(self) -> str:
        """The shell words of one task."""
        return _TASK.replace("FAILS", str(int(self.fails)))


@attrs.frozen
class Ways:
    """Each gives the seconds from the order to the last result."""

    pool: Pool
    directory: Path
    """New files go here."""

    @property
    def log(self) -> Path:
        """Of the jobs that were run last."""
        return self.pool.job_dir / "bench.log"

    def ewms(self, case: Case, *, workers: int = 0, **settings: str | int) -> float:
        """A workflow at the WMS stand-in: TMS, pilots, RabbitMQ; events by the field's client. A worker a slot."""
        return trio.run(self._ewms, case, workers or case.slots, settings)

    def plain_jobs(self, case: Case) -> float:
        """One container-universe job for each task."""
        return trio.run(self._jobs, case, f"n=$1; {case.task()}", case.tasks)

    def bundles(self, case: Case) -> float:
        """A container-universe job for each `case.bundle` tasks; it goes on after a failed one."""
        script = f"n=$(($1 * {case.bundle})); end=$((n + {case.bundle}))"
        script += f"; while test $n -lt $end; do {case.task()}; n=$((n + 1)); done"
        return trio.run(self._jobs, case, script, math.ceil(case.tasks / case.bundle))

    async def _ewms(self, case: Case, workers: int, settings: dict[str, Any]) -> float:
        ground = pool_ground(self.pool, self.directory)
        results: list[Any] = []
        async with open_stand(ground, self.directory) as stand, stand.tms():
            began = trio.current_time()
            workflow = await stand.request(_request(ground, case, workers, settings))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ground.queues.put, workflow.queue_in, [str(n) for n in range(case.tasks)])
                if case.kills:
                    constraint = f'EWMSTaskforceUUID == "{workflow.taskforce_uuid}"'
                    nursery.start_soon(self._kill_one, constraint, lambda: len(results) >= case.results // 2)
                with trio.fail_after(PATIENCE_S):
                    await ground.queues.get(workflow.queue_out, case.results, results.append)
                nursery.cancel_scope.cancel()
            took = trio.current_time() - began
            await stand.finish(workflow)
            await _until(lambda: _is_complete(stand, workflow))
        assert len(set(results)) == case.results
        return took

    async def _jobs(self, case: Case, script: str, count: int) -> float:
        log = self.log
        log.unlink(missing_ok=True)
        began = trio.current_time()
        submitted = await self.pool.run(
            ["condor_submit", "-terse", "-"],
            stdin=description(self.pool, script, log, count).encode(),
            cwd=str(log.parent),
        )
        cluster = submitted.stdout.split(b".")[0].decode()
        async with trio.open_nursery() as nursery:
            if case.kills:
                nursery.start_soon(self._kill_one, f"ClusterId == {cluster}", _half_time(log, case))
            with trio.fail_after(PATIENCE_S):
                while occurrences(log, "005") < count:  # noqa: ASYNC110  a foreign process writes it
                    await trio.sleep(_POLL_S)
            nursery.cancel_scope.cancel()
        return trio.current_time() - began

    async def _kill_one(self, constraint: str, is_time: Callable[[], bool]) -> None:
        while not is_time():  # noqa: ASYNC110
            await trio.sleep(_POLL_S)
        asked = ["condor_q", "-constraint", f"({constraint}) && JobStatus == 2", "-af:j", "ClusterId"]
        while True:
            running = (await self.pool.run(asked)).stdout.decode().split()
            # One that is found may end before it is told.
            if (
                running
                and not (await self.pool.run(["condor_vacate_job", "-fast", running[0]], check=False)).returncode
            ):
                return
            await trio.sleep(_POLL_S)


def _half_time(log: Path, case: Case) -> Callable[[], bool]:
    """Whether half of the time that the work needs has passed since the first job began."""
    began: list[float] = []

    def is_over() -> bool:
        if not began and occurrences(log, "001"):
            began.append(trio.current_time())
        return bool(began) and trio.current_time() - began[0] >= case.tasks / case.slots * TASK_S / 2

    return is_over


def lost_s(log: Path) -> float:
    """Seconds of slots whose work an eviction threw away, as a log of plain jobs tells."""
    began: dict[bytes, datetime] = {}
    lost = 0.0
    for kind, _cluster, proc, when in _EVENT.findall(log.read_bytes()):
        moment = datetime.fromisoformat(when.decode())
        if kind == b"001":
            began[proc] = moment
        elif kind == b"004":
            # A job may be evicted before it executes.
            lost += (moment - began.pop(proc, moment)).total_seconds()
    return lost


def _request(ground: Ground, case: Case, workers: int, settings: dict[str, Any]) -> WorkflowRequest:
    config = dict(ground.pilot_config)
    config["environment"] = {**config["environment"], "EWMS_PILOT_STOP_GRACE": 1, **settings}
    return WorkflowRequest(
        task_image=ground.task_image,
        task_args=f"sh -c 'read n < {{{{INFILE}}}}; {case.task()} || exit 1; echo $n > {{{{OUTFILE}}}}'",
        n_workers=workers,
        pilot_config=config,
    )


def description(pool: Pool, script: str, log: Path, count: int) -> str:
    """Of container-universe jobs: so many times a shell script, whose first argument is their number."""
    quoted = script.replace("'", "''").replace('"', '""')
    lines: Sequence[str] = (
        "universe = container",
        f"container_image = {pool.task_image}",
        "transfer_container = false",
        f"arguments = \"sh -c '{quoted}' sh $(Process)\"",
        "should_transfer_files = YES",
        'transfer_output_files = ""',
        f"log = {log}",
        "request_cpus = 1",
        "request_memory = 256 MB",
        "request_disk = 100 MB",
        f"queue {count}",
    )
    return "\n".join(lines) + "\n"


def occurrences(log: Path, kind: str) -> int:
    """How many events of a kind (its three digits) a log has."""
    # Asked five times a second of a log that grows to megabytes: it must not cost the jobs their processor.
    return log.read_bytes().count(b"\n%s (" % kind.encode()) if log.exists() else 0


async def _is_complete(stand: Stand, workflow: Any) -> bool:
    return bool((await stand.taskforce(workflow))["phase"] == "condor-complete")


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  only asking tells
            await trio.sleep(_POLL_S)
