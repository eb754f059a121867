"""One run: bring everything up, play the schedule while users go on, let all come to its end, and judge."""

import os
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from ewms.testing.pool import CommandFailed, PoolUnavailable
from ewms.testing.pool.ports import free_ports
from ewms.testing.proxy import Proxy, open_proxy
from ewms.testing.stand import tms_environment
from ewms.tms.condor.schedd import open_schedd
from ewms.wms.models import Phase
from tests.chaos import invariants, memory, remains, shifted
from tests.chaos.kinds import Kind
from tests.chaos.monitor import RECOVERY_S, TMS, Monitor
from tests.chaos.places import Place
from tests.chaos.schedule import Timed
from tests.chaos.system import Job, NotDone, System
from tests.chaos.table import Result
from tests.chaos.tms import TmsKeeper, kept
from tests.chaos.wmsprocess import Access, WmsProcess, logged_in, open_wms_process

_BASE_JOBS: Final = 2
_BASE_WORKERS: Final = 4
_BATCH: Final = 60
_LOW: Final = 30
"""With fewer events waiting a job gets more."""
_MANY: Final = 2000
"""With more outputs waiting their user takes them."""
_SETTLE_S: Final = 180.0
"""For everything to come right after the last fault."""
_GONE_S: Final = 60.0
_POLL_S: Final = 0.5
_NOT_DONE: Final = (NotDone, CommandFailed, OSError, subprocess.CalledProcessError, trio.TooSlowError, httpx.HTTPError)


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be run."""

    ground: str
    seed: int
    minutes: float
    schedule: Sequence[Timed]
    kinds: Mapping[str, Kind]
    spares: bool = False
    """See `System.spares`."""


@attrs.define(eq=False)
class Run:
    """A run that is under way."""

    plan: Plan
    place: Place
    work_dir: Path
    system: System
    monitor: Monitor
    secrets: Mapping[str, bytes]
    faults: Counter[str] = attrs.field(factory=Counter)
    recoveries: dict[str, float] = attrs.field(factory=dict)
    problems: list[str] = attrs.field(factory=list)
    outputs: dict[str, list[invariants.Output]] = attrs.field(factory=dict)
    """By outgoing queue: what was taken out at the end."""

    async def play(self) -> None:
        """The schedule, from the first fault to the last recovery."""
        began = trio.current_time()
        async with trio.open_nursery() as users:
            users.start_soon(self._feed)
            async with trio.open_nursery() as faults:
                for timed in self.plan.schedule:
                    await trio.sleep_until(began + timed.at)
                    faults.start_soon(self._play_one, timed, began)
                await trio.sleep_until(began + self.plan.minutes * 60)
            users.cancel_scope.cancel()

    async def _play_one(self, timed: Timed, began: float) -> None:
        kind = self.plan.kinds[timed.kind]
        async with AsyncExitStack() as stack:
            if kind.alone:
                await stack.enter_async_context(self.system.lock(kind.alone))
            self.system.say(f"{trio.current_time() - began:6.1f} s  {timed.kind}  {timed.lasts:g} s  ({timed.draw})")
            try:
                async with kind.act(self.system, timed):
                    self.faults[kind.name] += 1
                    await trio.sleep(timed.lasts)
            except _NOT_DONE as error:
                said = str(error) if isinstance(error, NotDone) else f"{type(error).__name__}: {str(error)[:200]}"
                self.system.notes[f"{timed.kind}: {said}"] += 1
                return
        took = await self.monitor.recovery(kind.heals)
        if took is None:
            self._wrong(f"the system does not get over {timed.kind} (its {kind.heals.value})")
        else:
            self.recoveries[kind.name] = max(took, self.recoveries.get(kind.name, 0.0))

    async def _feed(self) -> None:
        while True:
            for job in self.system.base:
                if self.monitor.waiting(job.workflow.queue_in, _BATCH) < _LOW:
                    await self.system.put(job, _BATCH)
                    await self.monitor.look_at_queues()
                if self.monitor.waiting(job.workflow.queue_out) > _MANY:
                    # Not broken off in the middle: what was taken is nowhere else.
                    async with self.system.feeding:
                        with trio.CancelScope(shield=True):  # bounded inside
                            await self._take(job)
            await trio.sleep(1)

    # --- the end ---

    async def settle(self) -> None:
        """Let every job that nobody stopped do all of its events, then stop them all."""
        running = [job for job in self.system.jobs if not job.is_stopped]
        await self._until_all_listen(running)
        with trio.move_on_after(_SETTLE_S) as patience:
            while any([await self._lacks(job) for job in running]):  # noqa: ASYNC110  only asking tells
                await trio.sleep(1)
        if patience.cancelled_caught:
            self._wrong(f"not all events were done within {_SETTLE_S:g} s after the last fault")
        for job in running:
            await self.system.stop(job)
        with trio.move_on_after(_SETTLE_S) as patience:
            while not all([await self._is_over(job) for job in self.system.jobs]):  # noqa: ASYNC110
                await trio.sleep(_POLL_S)
            while await self._queued():  # noqa: ASYNC110
                await trio.sleep(_POLL_S)
        if patience.cancelled_caught:
            self._wrong(f"not all taskforces came to their end within {_SETTLE_S:g} s after they were stopped")

    async def _until_all_listen(self, jobs: Sequence[Job]) -> None:
        """Every living pilot takes from its queue, and nobody else: the others of a deaf one would do its work."""
        found: list[str] = []
        with trio.move_on_after(RECOVERY_S):
            while found := await self.monitor.not_listening(jobs):  # noqa: ASYNC110  only asking tells
                await trio.sleep(1)
        for problem in found:
            self._wrong(problem)

    async def _lacks(self, job: Job) -> bool:
        """Whether a job has events without an output; what there is is taken."""
        await self.monitor.look_at_queues()
        taken = self.outputs.setdefault(job.workflow.queue_out, [])
        if {*job.sent} - {output.data for output in taken}:
            await self._take(job)
        return bool({*job.sent} - {output.data for output in taken})

    async def _take(self, job: Job) -> None:
        """All outputs that there are, as the job's user."""
        queue = job.workflow.queue_out
        found = await remains.take_outputs(self.place, queue, self.monitor.waiting(queue))
        self.outputs.setdefault(queue, []).extend(found)
        self.monitor.taken += len(found)

    async def _is_over(self, job: Job) -> bool:
        taskforce = await self.system.user.taskforce(job.workflow)
        never_began = job.is_withdrawn and taskforce["cluster_id"] is None
        return never_began or taskforce["phase"] == Phase.CONDOR_COMPLETE

    async def _queued(self) -> dict[str, set[int]]:
        """Taskforces that have a cluster in the queue still."""
        ads = await self.system.schedd.query(
            "EWMSTaskforceUUID =!= undefined && JobStatus =!= 3", ["EWMSTaskforceUUID", "ClusterId"], cluster_ads=True
        )
        found: dict[str, set[int]] = {}
        for ad in ads:
            found.setdefault(str(ad["EWMSTaskforceUUID"]), set()).add(int(str(ad["ClusterId"])))
        return found

    async def flows(self) -> list[invariants.Flow]:
        """What became of each job's events; the queues are empty afterwards."""
        await self.monitor.look_at_queues()
        flows = []
        for job in self.system.jobs:
            out, into = job.workflow.queue_out, job.workflow.queue_in
            await self._take(job)
            outputs = self.outputs[out]
            left = await remains.take_all(self.place, into, self.monitor.waiting(into))
            name = job.workflow.taskforce_uuid
            was_stopped = not job.is_base and job.is_stopped and not self._ran(job)
            lasted = not was_stopped
            flows.append(
                invariants.Flow(name, job.sent, outputs, [data for data, _ in left], lasted, job.interruptions)
            )
        return flows

    def _ran(self, job: Job) -> bool:
        return {*job.sent} <= {output.data for output in self.outputs[job.workflow.queue_out]}

    async def fates(self) -> list[invariants.Fate]:
        """What became of each taskforce."""
        queued = await self._queued()
        ads = await self.system.schedd.history("EWMSTaskforceUUID =!= undefined", ["EWMSTaskforceUUID", "ClusterId"])
        for ad in ads:
            self.monitor.clusters[str(ad["EWMSTaskforceUUID"])].add(int(str(ad["ClusterId"])))
        return [
            invariants.Fate(
                name=job.uuid,
                clusters=self.monitor.clusters[job.uuid],
                queued=queued.get(job.uuid, ()),
                document=await self.system.user.taskforce(job.workflow),
                was_withdrawn=job.is_withdrawn,
                harms=self.system.harms,
            )
            for job in self.system.jobs
        ]

    async def check_health(self, port: int) -> None:
        """The TMS itself must say that it is well."""
        async with httpx.AsyncClient() as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{port}/healthz")
                if answer.status_code != 200:
                    self._wrong(f"the TMS is not healthy at the end: {answer.text}")
            except httpx.HTTPError as error:
                self._wrong(f"the TMS does not say whether it is healthy: {error}")

    def _wrong(self, problem: str) -> None:
        self.system.say(f"WRONG: {problem}")
        self.problems.append(problem)


async def run(plan: Plan, place: Place, work_dir: Path, say: Callable[[str], None]) -> Result:
    """Play a plan on a place that is up, and judge what comes of it."""
    began = trio.current_time()
    (port,) = free_ports(1)
    mounts, sandboxes = remains.mounts(place), remains.sandboxes(place)
    async with _started(place, work_dir, port, say) as system:
        system.spares = plan.spares
        secrets = {
            "the broker's token": place.ground.broker_token.reveal().encode(),
            "the client's secret": system.wms.access["EWMS_CLIENT_SECRET"].encode(),
        }
        monitor = Monitor(system, secrets)
        this = Run(plan, place, work_dir, system, monitor, secrets)
        async with trio.open_nursery() as nursery:
            for _ in range(_BASE_JOBS):
                await system.request(_BASE_WORKERS, _BATCH, is_base=True)
            await nursery.start(monitor.run)
            await this.play()
            say("the faults are over")
            await this.settle()
            nursery.cancel_scope.cancel()
        await this.check_health(port)
        flows, fates = await this.flows(), await this.fates()
        problems = [*this.problems, *monitor.problems, *await system.tms.end(), *system.tms.wrong_ends]
    orphans = await _orphans(this, mounts, sandboxes)
    roots = [work_dir, place.seen(place.ground.job_dir), *place.spools]
    leaked = remains.files_problems(roots, secrets)
    logs = [system.tms.log, *place.seen(place.ground.job_dir).rglob("*.err")]
    for flow in flows:
        problems += invariants.judge_flow(flow)
    for fate in fates:
        problems += invariants.judge_fate(fate)
    lives = memory.lives(monitor.samples)
    problems += memory.judge(lives)
    problems += [*orphans, *leaked, *remains.tracebacks([path for path in logs if path.is_file()])]
    if problems:
        remains.keep_job_dir(place, work_dir / "job-dir-at-the-end")
    return Result(
        ground=plan.ground,
        broker=place.ground.broker_type,
        seed=plan.seed,
        minutes=plan.minutes,
        faults=dict(this.faults),
        recoveries=this.recoveries,
        events_in=sum(len(flow.sent) for flow in flows),
        events_out=sum(len({output.data for output in flow.outputs}) for flow in flows),
        duplicates=sum(flow.duplicates for flow in flows),
        interruptions=sum(flow.interruptions for flow in flows),
        lost=sum(len(flow.lost) for flow in flows),
        taskforces=len(fates),
        clusters=sum(len(fate.clusters) for fate in fates),
        orphans=len(orphans),
        tokens=len(leaked) + sum("command line" in problem for problem in monitor.problems),
        tms_memory_mb=round(max((each.memory for each in monitor.samples if each.role == TMS), default=0)),
        lives=tuple(lives),
        seconds=trio.current_time() - began,
        notes=dict(system.notes),
        problems=tuple(dict.fromkeys(problems)),
    )


async def _orphans(this: Run, mounts: Sequence[str], sandboxes: Sequence[str]) -> list[str]:
    """Wait until nothing is left; what is left all the same."""
    found: list[str] = []
    with trio.move_on_after(_GONE_S):
        while True:
            found = [
                *invariants.judge_orphans("processes", [], remains.processes(this.system.marker)),
                *invariants.judge_orphans("mounts", mounts, remains.mounts(this.place)),
                *invariants.judge_orphans("workers' directories", sandboxes, remains.sandboxes(this.place)),
            ]
            if not found:
                return []
            await trio.sleep(_POLL_S)
    return found


@asynccontextmanager
async def _started(place: Place, work_dir: Path, port: int, say: Callable[[str], None]) -> AsyncIterator[System]:
    """Everything between the user and the ground, running."""
    ground = place.ground
    async with AsyncExitStack() as stack:
        broker_proxy: Proxy | None = None
        pilots_broker = ground.broker_address
        if place.broker is not None:
            broker_proxy = await stack.enter_async_context(open_proxy("127.0.0.1", place.broker.port))
            pilots_broker = ground.broker_address.replace(f":{place.broker.port}", f":{broker_proxy.port}")
        wms: WmsProcess = await stack.enter_async_context(open_wms_process(ground, work_dir, pilots_broker))
        wms_proxy = await stack.enter_async_context(open_proxy("127.0.0.1", wms.port))
        clock_file = work_dir / "clock"
        clock_file.write_text("0")
        program = work_dir / "shifted.py"
        shutil.copyfile(shifted.__file__, program)
        for path in (clock_file, program):
            path.chmod(0o644)
        settings = tms_environment(ground, Access.through(wms, wms_proxy.port), TMS_METRICS_PORT=str(port))
        tms = TmsKeeper(
            ground.command([ground.python, str(program), str(clock_file), "tms"]), settings, work_dir / "tms.log"
        )
        helper = settings.get("TMS_SCHEDD_HELPER", f"{ground.python} -m ewms.tms.condor.helper")
        schedd = await stack.enter_async_context(
            open_schedd(ground.command(helper.split()), call_timeout=20, env={"PATH": os.defpath})
        )
        user = await stack.enter_async_context(logged_in(wms))
        await stack.enter_async_context(kept(tms))
        marker = f"chaos-{uuid.uuid4().hex}"
        yield System(place, wms, user, tms, schedd, broker_proxy, wms_proxy, clock_file, marker, say)


__all__ = ["Plan", "PoolUnavailable", "run"]
