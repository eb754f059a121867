"""The whole system while it runs, with the handles by which faults get at it and by which it is watched."""

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing import outside
from ewms.testing.proxy import Proxy
from ewms.testing.stand import Workflow, WorkflowRequest
from ewms.tms.condor.base import Action, CondorError, Schedd
from tests.chaos.invariants import Harm
from tests.chaos.places import Place
from tests.chaos.tms import TmsKeeper
from tests.chaos.wmsprocess import PatientUser, WmsProcess

RUNNING: Final = 2
HELD: Final = 5
_PATIENCE_S: Final = 60
_POLL_S: Final = 0.3


class NotDone(Exception):
    """A fault was not done, because there was nothing to do it to; the text says what."""


@attrs.define(eq=False)
class Job:
    """A workflow that was requested, and what its user knows of it."""

    workflow: Workflow
    n_workers: int
    order: str
    """Its start order, as the WMS told it before the TMS took it; "" if that was too late."""
    is_base: bool
    """It runs from the beginning to the end."""
    sent: list[str] = attrs.field(factory=list)
    gone: int = 0
    """Workers that were removed by hand."""
    is_stopped: bool = False
    is_withdrawn: bool = False
    """It was stopped so early that there may never be a cluster."""
    interruptions: int = 0
    """How many times one of its pilots was disturbed: each may do one event a second time."""

    @property
    def uuid(self) -> str:
        """Its taskforce's."""
        return self.workflow.taskforce_uuid


@attrs.define(eq=False)
class System:
    """What faults act upon."""

    place: Place
    wms: WmsProcess
    user: PatientUser
    tms: TmsKeeper
    schedd: Schedd
    """Ours: to look, and to do by hand what an operator does."""
    broker_proxy: Proxy | None
    """Between the pilots and their broker; None: the embedded broker has no network."""
    wms_proxy: Proxy
    """Between the TMS and its WMS."""
    clock_file: Path
    """By how many seconds the TMS's wall clock is wrong."""
    marker: str
    """Stands among the arguments of every task."""
    say: Callable[[str], None]
    spares: bool = False
    """Only the first base job's pilots are ended one by one; the others become old."""
    jobs: list[Job] = attrs.field(factory=list)
    harms: list[Harm] = attrs.field(factory=list)
    """When log events may have been lost."""
    notes: Counter[str] = attrs.field(factory=Counter)
    """What faults could not do, because there was nothing to do it to."""
    feeding: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while a user puts events, and while the broker is away: it is not the user's clients that are tried here."""
    newest_queue: float = -math.inf
    """When the last workflow got its queues (Trio's clock)."""
    newest_startd: float = -math.inf
    """When the execution point was restarted last (Trio's clock)."""
    _number: int = 0
    _held: dict[str, trio.Lock] = attrs.field(factory=lambda: defaultdict(trio.Lock))

    def lock(self, what: str) -> trio.Lock:
        """For what can have only one fault at a time."""
        return self._held[what]

    @property
    def base(self) -> list[Job]:
        """The jobs that run all the time."""
        return [job for job in self.jobs if job.is_base]

    @property
    def victims(self) -> list[Job]:
        """The base jobs of which pilots are ended."""
        return self.base[:1] if self.spares else self.base

    # --- the user ---

    async def request(self, n_workers: int, n_events: int, *, is_base: bool = False) -> Job:
        """A new workflow with its first events."""
        request = WorkflowRequest(
            task_image=self.place.ground.task_image,
            task_args=f"sh -c 'sleep 0.2; cp {{{{INFILE}}}} {{{{OUTFILE}}}}; : {self.marker}'",
            n_workers=n_workers,
            pilot_config=self._pilot_config(),
        )
        workflow = await self.user.request(request)
        job = Job(workflow, n_workers, await self._order(workflow), is_base)
        self.jobs.append(job)
        await self.put(job, n_events)
        return job

    def _pilot_config(self) -> dict[str, object]:
        config = dict(self.place.ground.pilot_config)
        own = {"EWMS_PILOT_STOP_GRACE": 2, "EWMS_PILOT_KEEP_FAILED_COUNT": 3}
        config["environment"] = {**config["environment"], **own}
        return config

    async def _order(self, workflow: Workflow) -> str:
        said = await self.user.next_order()
        try:
            is_ours = json.loads(said)["taskforce"]["taskforce_uuid"] == workflow.taskforce_uuid
        except (KeyError, TypeError, ValueError):
            return ""
        return said if is_ours else ""

    async def put(self, job: Job, count: int) -> None:
        """More events for a job."""
        # Not broken off in the middle: nobody would know what was sent.
        async with self.feeding:
            events = [f"event {self._number + number}" for number in range(count)]
            self._number += count
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _PATIENCE_S):
                if not job.sent:
                    # The message queue service would have made both queues, before anybody uses them.
                    await self.place.ground.queues.put(job.workflow.queue_out, [])
                    self.newest_queue = trio.current_time()
                await self.place.ground.queues.put(job.workflow.queue_in, events)
            job.sent += events

    async def stop(self, job: Job) -> None:
        """The user's finish."""
        job.is_stopped = True
        job.interruptions += job.n_workers  # also those that start before the TMS hears of it
        await self.user.finish(job.workflow)

    # --- pilots and workers ---

    def pilots(self, jobs: Sequence[Job]) -> list[tuple[Job, outside.Process]]:
        """The pilots of some jobs, each with its job."""
        found = outside.pilots(self.marker)
        queues = [(job, f"QUEUE_INCOMING={job.workflow.queue_in}\0".encode()) for job in jobs]
        return [(job, each) for each in found for job, queue in queues if queue in each.environment]

    @contextmanager
    def interrupting(self, jobs: Sequence[Job] | None = None, *, at_most: int | None = None) -> Iterator[None]:
        """Meanwhile the pilots of these jobs (None: of all) are disturbed, once each, and those that start as well.

        `at_most` so many of them, and nobody knows of which job.
        """
        before: set[int] = set()
        self._note_interrupted(self.jobs if jobs is None else jobs, at_most, before)
        try:
            yield
        finally:
            self._note_interrupted(self.jobs if jobs is None else jobs, at_most, before)

    def _note_interrupted(self, jobs: Sequence[Job], at_most: int | None, noted: set[int]) -> None:
        new = Counter[int]()
        for job, pilot in self.pilots(jobs):
            if pilot.pid not in noted:
                noted.add(pilot.pid)
                new[id(job)] += 1
        for job in jobs:
            job.interruptions += new[id(job)] if at_most is None else min(at_most, new[id(job)])

    @contextmanager
    def harming_log(self) -> Iterator[None]:
        """Log events of whoever lives meanwhile may be lost."""
        harm = Harm(time.time())
        self.harms.append(harm)
        try:
            yield
        finally:
            harm.end = time.time()

    async def running_worker(self, draw: int) -> tuple[Job, str]:
        """A running worker of a base job, and the constraint that means it alone.

        Raises:
            NotDone: there is none for long.
        """
        job = self.victims[draw % len(self.victims)]
        mine = f'EWMSTaskforceUUID == "{job.uuid}" && JobStatus == {RUNNING}'
        with trio.move_on_after(_PATIENCE_S):
            while True:
                try:
                    ads = await self.schedd.query(mine, ["ClusterId", "ProcId"])
                except CondorError:
                    ads = []
                if ads:
                    ad = ads[draw % len(ads)]
                    return job, f"ClusterId == {ad['ClusterId']} && ProcId == {ad['ProcId']}"
                await trio.sleep(_POLL_S)
        raise NotDone("no running worker")

    async def is_held(self, constraint: str) -> bool:
        """Whether a worker is held, or the schedd does not say."""
        try:
            return bool(await self.schedd.query(f"({constraint}) && JobStatus == {HELD}", ["ProcId"]))
        except CondorError:
            return True

    async def act(self, action: Action, constraint: str) -> None:
        """Do it by hand.

        Raises:
            NotDone: the schedd did not, or did not answer for long.
        """
        with trio.move_on_after(_PATIENCE_S):
            while True:
                try:
                    if (await self.schedd.act(action, constraint, reason="by hand")).succeeded:
                        return
                    raise NotDone(f"nothing to {action} any more")
                except CondorError:
                    await trio.sleep(_POLL_S)
        raise NotDone(f"{action} was not possible")
