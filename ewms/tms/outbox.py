"""What the WMS hears about one taskforce, and in which order.

Whichever child of the service speaks: confirm → statuses → condor-rm → last statuses → condor-complete, each only after
the one before was accepted. A turn per taskforce keeps two children from overtaking each other; a standing per
taskforce says what may be sent at all.
"""

import enum
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import attrs
import structlog
import trio

from ewms.liveness import resting
from ewms.secret import Secret
from ewms.tms.board import TaskforceReport
from ewms.tms.doubts import Doubts
from ewms.tms.ledger import Ledger
from ewms.wms.client import WMS
from ewms.wms.errors import WMSError, WMSNotFound
from ewms.wms.models import CompoundStatuses, TopTaskErrors

log = structlog.stdlib.get_logger(__name__)

_COMPLETIONS: Final = 8
"""Ends that are told to the WMS at a time: after an outage there may be thousands."""


class Stage(enum.Enum):
    """Where a taskforce is in what the WMS hears of it."""

    STARTING = "starting"
    """The WMS does not know its cluster yet: its statuses wait."""
    OPEN = "open"
    """Confirmed: statuses are sent as they change."""
    STOPPING = "stopping"
    """Its cluster is being removed, and the WMS is to hear of that first: its statuses wait."""
    ENDING = "ending"
    """Its last statuses were accepted: only condor-rm and condor-complete may follow."""
    REFUSED = "refused"
    """As `ENDING`, but the WMS did not take its end: that is told again, seldom."""
    UNKNOWN = "unknown"
    """Completed, withdrawn, or never of this WMS: nothing is sent."""


@attrs.frozen
class OpenTaskforce:
    """A taskforce that the WMS lists as not completed."""

    uuid: str
    cluster_id: int | None
    has_errors: bool = False
    """The WMS shows errors of it."""


@attrs.define
class _Taskforce:
    stage: Stage = Stage.UNKNOWN
    turn: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0
    stops: int = 0
    """How many are about to remove its cluster: one, or two after a restart."""
    ended_at: int = 0
    """What the WMS did not take (epoch s)."""
    tokens: tuple[Secret, ...] = ()
    """Of its queues. As long as these are kept, no log shows them: its workers' errors may quote them."""

    @property
    def seen(self) -> Stage:
        """The stage as others see it."""
        return Stage.STOPPING if self.stops else self.stage


class Outbox:
    """The one speaker of confirmed taskforces; memory follows those that are not completed."""

    def __init__(self, wms: WMS, ledger: Ledger) -> None:
        self._wms = wms
        self._ledger = ledger
        self._taskforces: dict[str, _Taskforce] = {}
        self.doubts = Doubts()
        """Taskforces of which the WMS may yet take something that is older than what it took last."""
        self._with_errors: set[str] = set()
        """Taskforces of which the WMS shows errors."""
        self._completions = trio.CapacityLimiter(_COMPLETIONS)
        self.reconciled = trio.Event()
        """Set when it is known which taskforces the WMS takes for not completed."""

    def stage(self, uuid: str) -> Stage:
        """What may be sent about a taskforce now."""
        taskforce = self._taskforces.get(uuid)
        return taskforce.seen if taskforce else Stage.UNKNOWN

    def set_stage(self, uuid: str, stage: Stage) -> None:
        """Say where a taskforce is."""
        taskforce = self._taskforces.setdefault(uuid, _Taskforce())
        taskforce.stage = stage
        self._forget_if_idle(uuid)

    def leave_unknown(self, uuid: str, stage: Stage) -> bool:
        """Say where a taskforce is of which nothing would be sent (its stop may be under way); False: it is not so."""
        taskforce = self._taskforces.get(uuid)
        if taskforce is not None and taskforce.stage is not Stage.UNKNOWN:
            return False
        self.set_stage(uuid, stage)
        return True

    def in_stage(self, stage: Stage) -> list[str]:
        """The taskforces in a stage."""
        return [uuid for uuid, taskforce in self._taskforces.items() if taskforce.seen is stage]

    def counts(self) -> Mapping[str, int]:
        """How many taskforces there are in each stage."""
        stages = [taskforce.seen.value for taskforce in self._taskforces.values()]
        return {stage: stages.count(stage) for stage in sorted(set(stages))}

    @asynccontextmanager
    async def turn(self, uuid: str) -> AsyncIterator[None]:
        """While this lasts nobody else tells the WMS of this taskforce's start, stop or end."""
        taskforce = self._taskforces.setdefault(uuid, _Taskforce())
        taskforce.users += 1
        try:
            with resting():  # who has it may wait for a schedd, for hours
                await taskforce.turn.acquire()
            try:
                yield
            finally:
                taskforce.turn.release()
        finally:
            taskforce.users -= 1
            self._forget_if_idle(uuid)

    @contextmanager
    def stopping(self, uuid: str) -> Iterator[None]:
        """While this lasts its statuses wait: the last ones come after condor-rm."""
        taskforce = self._taskforces.setdefault(uuid, _Taskforce())
        taskforce.stops += 1
        try:
            yield
        finally:
            taskforce.stops -= 1
            self._forget_if_idle(uuid)

    def keep_hidden(self, uuid: str, tokens: Iterable[Secret]) -> None:
        """Let no log show these until the taskforce is over; the caller has its turn."""
        self._taskforces[uuid].tokens = tuple(tokens)

    async def send_statuses(self, newest: Callable[[], Sequence[TaskforceReport]]) -> None:
        """Send one batch until it is accepted; each attempt sends what `newest` gives then.

        Taskforces that the WMS does not know are not spoken of again.
        """
        errors: dict[str, TopTaskErrors] = {}
        ended: set[str] = set()

        def batch() -> tuple[dict[str, CompoundStatuses], dict[str, TopTaskErrors]]:
            nonlocal errors, ended
            reports = newest()
            ended = {report.uuid for report in reports if report.completed_at is not None}
            # Errors that are gone (their workers run anew) are to go at the WMS too.
            errors = {
                report.uuid: report.top_task_errors
                for report in reports
                if report.top_task_errors or report.uuid in self._with_errors
            }
            return {report.uuid: report.compound_statuses for report in reports if report.compound_statuses}, errors

        def doubt(uuids: Iterable[str]) -> None:
            # The statuses of an ended cluster overwrite nothing newer. Were they in doubt, too, a WMS of whose answers
            # many get lost would never hear of an end.
            self._doubt(uuid for uuid in uuids if uuid not in ended)

        unknown = await self._wms.send_newest_statuses(batch, doubt)
        for uuid, each in errors.items():
            (self._with_errors.add if each else self._with_errors.discard)(uuid)
        for uuid in unknown:
            log.warning("the WMS does not know this taskforce, its statuses are not sent again", taskforce=uuid)
            self.set_stage(uuid, Stage.UNKNOWN)

    async def confirm_stop(self, uuid: str) -> None:
        """Say that the removal was accepted; the caller has the taskforce's turn."""
        try:
            await self._wms.confirm_stop(uuid, self._doubt)
        except WMSNotFound:
            log.warning("the WMS does not know the taskforce whose stop it ordered", taskforce=uuid)
        await self._ledger.update(uuid, stopped_at=time.time())

    async def complete(self, uuid: str, ended_at: int) -> None:
        """Say, once, that the cluster has ended (epoch s); the taskforce's last statuses were accepted.

        If the WMS does not take it, the taskforce is `REFUSED` then. One in doubt is `OPEN` again: its end comes by the
        report that follows, or by the audit.
        """
        async with self.turn(uuid):
            if self._taskforces[uuid].stage is not Stage.ENDING:
                return
            if uuid in self.doubts:
                self.set_stage(uuid, Stage.OPEN)
                return
            try:
                async with self._completions:
                    await self._wms.complete(uuid, condor_complete_ts=ended_at)
            except WMSNotFound:
                log.warning("the WMS does not know the taskforce that completed", taskforce=uuid)
            except WMSError as error:
                log.error(
                    "the WMS does not take the taskforce's end, trying again later", taskforce=uuid, error=str(error)
                )
                self._taskforces[uuid].ended_at = ended_at
                self.set_stage(uuid, Stage.REFUSED)
                return
            else:
                log.info("taskforce completed", taskforce=uuid, ended_at=ended_at)
            await self.note_completed(uuid, ended_at)

    async def complete_again(self, uuid: str) -> None:
        """Say once more what the WMS did not take."""
        if self.stage(uuid) is Stage.REFUSED:
            self.set_stage(uuid, Stage.ENDING)
            await self.complete(uuid, self._taskforces[uuid].ended_at)

    async def note_completed(self, uuid: str, ended_at: int) -> None:
        """The WMS knows that the taskforce is over (its cluster ended at this epoch s)."""
        await self._ledger.update(uuid, ended_at=ended_at, completed_at=time.time())
        self.set_stage(uuid, Stage.UNKNOWN)

    def adopt(self, open_taskforces: Iterable["OpenTaskforce"]) -> None:
        """Take over, after a restart, what the WMS lists as not completed."""
        for each in open_taskforces:
            self.leave_unknown(each.uuid, Stage.STARTING if each.cluster_id is None else Stage.OPEN)
            if each.has_errors:
                self._with_errors.add(each.uuid)
        self.reconciled.set()

    def _doubt(self, uuids: Iterable[str]) -> None:
        self.doubts.add(uuids, trio.current_time())

    def _forget_if_idle(self, uuid: str) -> None:
        taskforce = self._taskforces[uuid]
        if taskforce.seen is Stage.UNKNOWN and not taskforce.users:
            del self._taskforces[uuid]
            self._with_errors.discard(uuid)
