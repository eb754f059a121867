"""The states of a job and how it goes from one to the next (pure): what was asked, what happened → what is written."""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import classad2

from ewms.testing.schedd import logtext
from ewms.testing.schedd.logtext import Event, Usage
from ewms.testing.schedd.machine import evaluates_true
from ewms.testing.schedd.submitparse import Description


class Status(enum.IntEnum):
    """HTCondor's JobStatus."""

    IDLE = 1
    RUNNING = 2
    REMOVED = 3
    COMPLETED = 4
    HELD = 5


HOLD_BY_USER: Final = 1
HOLD_BY_POLICY: Final = 3
HOLD_OUTPUT_TRANSFER: Final = 12
HOLD_INPUT_TRANSFER: Final = 13
HOLD_JOB_DURATION: Final = 46
HOLD_EXECUTE_DURATION: Final = 47
HOLD_LABELS: Final[Mapping[int, str]] = {
    HOLD_BY_USER: "UserRequest",
    HOLD_BY_POLICY: "JobPolicy",
    HOLD_OUTPUT_TRANSFER: "TransferOutputError",
    HOLD_INPUT_TRANSFER: "TransferInputError",
    HOLD_JOB_DURATION: "JobDurationExceeded",
    HOLD_EXECUTE_DURATION: "JobExecuteExceeded",
}
"""How `NumHoldsByReason` calls them."""
VACATED_BY_SCHEDD: Final = 1022
EVICTED_BY_REMOVE: Final = 1023


@attrs.frozen
class Stop:
    """Why a running worker is stopped, and what becomes of its job then."""

    then: Status
    reason: str
    code: int = 0
    """The hold code, for `then=HELD`."""
    subcode: int = 0
    eviction: int | None = None
    """The code of the eviction event; None: none is written (a policy stopped it)."""


def user_stop(action: str, reason: str) -> Stop:
    """What an `act` means for a running worker."""
    match action:
        case "remove":
            return Stop(Status.REMOVED, reason, eviction=EVICTED_BY_REMOVE)
        case "hold":
            return Stop(Status.HELD, reason, HOLD_BY_USER, eviction=HOLD_BY_USER)
        case "vacate":
            return Stop(Status.IDLE, "Job vacated by schedd", eviction=VACATED_BY_SCHEDD)
    raise ValueError(f"{action!r} stops no worker")


@attrs.frozen
class Ended:
    """How a run of a worker ended; one of `exit_code` and `signal` is None."""

    exit_code: int | None
    signal: int | None
    usage: Usage


class Run(Protocol):
    """A run of a worker that is under way."""

    def stop(self) -> None:
        """Stop it, for the reason that the job's `stop` names."""


@attrs.define(eq=False)
class Job:
    """One proc in the queue."""

    cluster: int
    proc: int
    ad: Any
    status: Status = Status.IDLE
    """The same as the ad's JobStatus (`Cluster.enter` sets both)."""
    stop: Stop | None = None
    run: Run | None = None
    has_ended: bool = False
    """It ran to an end before, and is in the queue again."""

    @property
    def is_stopping(self) -> bool:
        """Whether its worker has to stop."""
        return self.stop is not None

    def holds(self, attribute: str) -> bool:
        """Whether the policy expression `attribute` is true now."""
        return attribute in self.ad and evaluates_true(self.ad.lookup(attribute), self.ad)

    def value(self, attribute: str, default: Any) -> Any:
        """The evaluated attribute, if it is of the type of `default`; else that."""
        value = self.ad[attribute] if attribute in self.ad else default  # noqa: SIM401  an ad's get() is not a dict's
        value = value.eval(self.ad) if isinstance(value, classad2.ExprTree) else value
        return value if type(value) is type(default) else default


@attrs.define(eq=False)
class Cluster:
    """A submission: its description, its procs in the queue, and its factory if it is one."""

    id: int
    description: Description
    ad: Any
    jobs: dict[int, Job] = attrs.field(factory=dict)
    idle: dict[int, Job] = attrs.field(factory=dict)
    """Those of the jobs that wait for a slot."""
    fits: bool | None = None
    """Whether its jobs match the machine; None when that has to be found out (anew)."""
    next_proc: int = 0
    pause_reason: str | None = None
    removed: bool = False

    @property
    def exhausted(self) -> bool:
        """Whether no further proc will be materialized."""
        return self.removed or self.next_proc >= self.description.count

    def add(self, job: Job) -> None:
        """A new, idle job."""
        self.jobs[job.proc] = self.idle[job.proc] = job
        self.next_proc = job.proc + 1

    def enter(self, job: Job, status: Status, now: int) -> None:
        """The job's new status; it begins `now` (s since the epoch)."""
        job.ad.update({"LastJobStatus": int(job.status), "JobStatus": int(status), "EnteredCurrentStatus": now})
        job.status = status
        if status is Status.IDLE:
            self.idle[job.proc] = job
        else:
            self.idle.pop(job.proc, None)

    def room(self) -> int:
        """How many procs may be materialized now."""
        left = self.description.count - self.next_proc
        if self.removed or self.pause_reason is not None:
            return 0
        max_idle, max_present = self.description.factory_limits
        if max_idle is not None:
            left = min(left, max_idle - len(self.idle))
        if max_present is not None:
            left = min(left, max_present - len(self.jobs))
        return max(0, left)


@attrs.frozen
class Fate:
    """What the end of a run makes of its job."""

    status: Status
    events: Sequence[Event]
    reason: str = ""
    code: int = 0
    subcode: int = 0


def fate(job: Job, ended: Ended) -> Fate:
    """What becomes of a job whose run has ended. A stopped worker never counts as terminated, whatever it returned."""
    if job.stop is not None:
        return stopped(job, job.stop, ended.usage)
    ids = (job.cluster, job.proc)
    if job.holds("OnExitHold"):
        reason, subcode = policy_reason(job, "OnExitHold", "TRUE")
        return Fate(Status.HELD, [logtext.held(*ids, reason, HOLD_BY_POLICY, subcode)], reason, HOLD_BY_POLICY, subcode)
    if not job.holds("OnExitRemove"):
        reason, _ = policy_reason(job, "OnExitRemove", "FALSE")
        (how, *_) = logtext.exit_lines(ended.exit_code, ended.signal)
        return Fate(Status.IDLE, [logtext.requeued(*ids, ended.usage, how, reason)])
    return Fate(Status.COMPLETED, [logtext.terminated(*ids, ended.usage, ended.exit_code, ended.signal)])


def stopped(job: Job, stop: Stop, usage: Usage) -> Fate:
    """What becomes of a job that had to stop: the events of the stop, in HTCondor's order."""
    ids = (job.cluster, job.proc)
    events = []
    if stop.eviction is not None:
        subcode = stop.subcode if stop.then is Status.HELD else 0
        events.append(logtext.evicted(*ids, usage, code=stop.eviction, subcode=subcode, reason=stop.reason))
    if stop.then is Status.HELD:
        events.append(logtext.held(*ids, stop.reason, stop.code, stop.subcode))
    elif stop.then is Status.REMOVED:
        events.append(logtext.aborted(*ids, stop.reason))
    return Fate(stop.then, events, stop.reason, stop.code, stop.subcode)


def lost(job: Job, message: str, usage: Usage) -> Fate:
    """What becomes of a job whose worker is gone and nobody knows how it ended."""
    event = logtext.shadow_exception(job.cluster, job.proc, message)
    if job.stop is None:
        return Fate(Status.IDLE, [event])
    then = stopped(job, attrs.evolve(job.stop, eviction=None), usage)
    return attrs.evolve(then, events=[event, *then.events])


def policy_reason(job: Job, attribute: str, value: str) -> tuple[str, int]:
    """Reason and subcode of what a policy expression did."""
    shown = repr(job.ad.lookup(attribute))
    default = f"The job attribute {attribute} expression '{shown}' evaluated to {value}"
    return job.value(f"{attribute}Reason", "") or default, job.value(f"{attribute}SubCode", 0)
