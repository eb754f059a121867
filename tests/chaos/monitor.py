"""Watches the system from outside while it runs: queues, schedd, processes, the WMS's log."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

import attrs
import trio

from ewms.testing import outside
from ewms.tms.condor.base import CondorError
from tests.chaos.depths import Depth
from tests.chaos.invariants import judge_listening, leaks
from tests.chaos.kinds import Heals
from tests.chaos.memory import Sample
from tests.chaos.system import Job, System
from tests.load.sampling import look

RECOVERY_S: Final = 150.0
"""Longer than anything may need, on a machine that is busy with other things."""
_POLL_S: Final = 0.25
_SAMPLE_S: Final = 5.0


TMS: Final = "TMS"
"""The role in samples."""


@attrs.frozen
class Marks:
    """How far all was at some moment."""

    polls: int
    outputs: int


@attrs.define(eq=False)
class Monitor:
    """What was seen so far."""

    system: System
    secrets: dict[str, bytes]
    depths: dict[str, Depth] = attrs.field(factory=dict)
    """Each queue, when the broker was asked last."""
    outputs: int = 0
    """That ever were in outgoing queues."""
    taken: int = 0
    """Outputs that are in no queue any more."""
    clusters: dict[str, set[int]] = attrs.field(factory=lambda: defaultdict(set))
    """All that the schedd ever had for each taskforce."""
    polls: int = 0
    """How many times the TMS asked for stop orders and was answered."""
    missing: int = 0
    """Pilots that base jobs lack."""
    problems: dict[str, None] = attrs.field(factory=dict)
    """A set that keeps its order."""
    samples: list[Sample] = attrs.field(factory=list)
    """Memory of the TMS, its helpers, and base jobs' pilots."""
    _began: float = attrs.field(factory=trio.current_time)
    _read: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Watch for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_for_ever, self.look_at_queues, 1.0)
            nursery.start_soon(_for_ever, self.look_at_schedd, 2.0)
            nursery.start_soon(_for_ever, self._look_at_processes, 1.0)
            nursery.start_soon(_for_ever, self._look_at_wms, 0.5)
            nursery.start_soon(_for_ever, self._look_at_memory, _SAMPLE_S)
            task_status.started()

    def marks(self) -> Marks:
        """Where all is now."""
        return Marks(self.polls, self.outputs)

    def is_well(self, heals: Heals, since: Marks) -> bool:
        """Whether the system is over a fault that was undone at `since`."""
        match heals:
            case Heals.TMS:
                return self.polls > since.polls
            case Heals.FLOW:
                return self.outputs > since.outputs
            case Heals.PILOTS:
                return self.missing == 0

    async def recovery(self, heals: Heals) -> float | None:
        """Wait until the system is over what was just undone: the s that it took; None if it never is."""
        began, marks = trio.current_time(), self.marks()
        if heals is Heals.PILOTS:
            await trio.sleep(2)  # what was killed has to be missed first
        with trio.move_on_after(RECOVERY_S):
            while not self.is_well(heals, marks):  # noqa: ASYNC110  it is looked at from outside
                await trio.sleep(_POLL_S)
            return trio.current_time() - began
        return None

    def waiting(self, queue: str, unknown: int = 0) -> int:
        """Events that wait in a queue, as far as it was looked at; else `unknown`."""
        return self.depths[queue].ready if queue in self.depths else unknown

    async def not_listening(self, jobs: Sequence[Job]) -> list[str]:
        """Which of these jobs lack pilots, or have other consumers than pilots."""
        self.depths = {}  # an older answer is none
        await self.look_at_queues()
        pilots = Counter(job.uuid for job, _ in await trio.to_thread.run_sync(self.system.pilots, jobs))
        if not self.depths:
            return ["the broker does not say who listens"]
        found = [f"{self.missing} pilots are missing"] if self.missing else []
        return found + [
            problem
            for job in jobs
            for problem in judge_listening(job.uuid, self.depths[job.workflow.queue_in].consumers, pilots[job.uuid])
        ]

    # --- what is looked at ---

    async def look_at_queues(self) -> None:
        """Count what waits."""
        jobs = list(self.system.jobs)
        out, into = [job.workflow.queue_out for job in jobs], [job.workflow.queue_in for job in jobs]
        depths = await self.system.place.depths([*out, *into])
        if depths is not None:
            self.depths, self.outputs = depths, self.taken + sum(depths[queue].ready for queue in out)

    async def look_at_schedd(self) -> None:
        """Which clusters there are."""
        try:
            ads = await self.system.schedd.query(
                "EWMSTaskforceUUID =!= undefined", ["EWMSTaskforceUUID", "ClusterId"], cluster_ads=True
            )
        except CondorError:
            return  # a fault is on, and we are no TMS
        for ad in ads:
            self.clusters[str(ad["EWMSTaskforceUUID"])].add(int(str(ad["ClusterId"])))
        for uuid, found in self.clusters.items():
            if len(found) > 1:
                self._wrong(f"taskforce {uuid} has {len(found)} clusters: {sorted(found)}")

    async def _look_at_processes(self) -> None:
        processes = await trio.to_thread.run_sync(lambda: list(outside.processes()))
        for each in processes:
            for leak in leaks(f"the command line of process {each.pid}", each.command_line, self.secrets):
                self._wrong(f"{leak.secret} stands in {leak.place}: {each}")
        pilots = [each for each in processes if each.is_pilot]
        self.missing = sum(
            max(
                0, job.n_workers - job.gone - sum(job.workflow.queue_in.encode() in each.environment for each in pilots)
            )
            for job in self.system.base
        )

    async def _look_at_memory(self) -> None:
        self.samples += await trio.to_thread.run_sync(self._sampled, trio.current_time() - self._began)

    def _sampled(self, at: float) -> list[Sample]:
        tms, *helpers = self.system.tms.pids or [0]
        roles = {tms: TMS, **dict.fromkeys(helpers, "its helpers")}
        roles |= {each.pid: "pilots" for _, each in self.system.pilots(self.system.base)}
        looks = {pid: look([pid]) for pid in roles}
        return [Sample(round(at, 1), roles[pid], pid, memory, files) for pid, (memory, files) in looks.items() if files]

    async def _look_at_wms(self) -> None:
        with self.system.wms.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        end = text.rfind(b"\n") + 1
        self._read += end
        lines = text[:end].splitlines()
        self.polls += sum(
            b"pending-stopper" in line and b"status=200" in line and b"fault=None" in line for line in lines
        )

    def _wrong(self, problem: str) -> None:
        if problem not in self.problems:
            self.system.say(f"WRONG: {problem}")
            self.problems[problem] = None


async def _for_ever(look: Callable[[], Awaitable[None]], every: float) -> NoReturn:
    while True:
        await look()
        await trio.sleep(every)
