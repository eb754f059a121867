"""What the WMS hears about one taskforce, and in which order.

Whichever child of the service speaks: confirm → statuses → condor-rm → last statuses → condor-complete, each only after
the one before was accepted. A turn per taskforce keeps two children from overtaking each other; a standing per
taskforce says what may be sent at all.
"""

import enum
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from ewms.tms.ledger import Ledger
from ewms.wms.client import WMS
from ewms.wms.errors import WMSNotFound
from ewms.wms.models import CompoundStatuses, TopTaskErrors

log = structlog.stdlib.get_logger(__name__)


class Stage(enum.Enum):
    """Where a taskforce is in what the WMS hears of it."""

    STARTING = "starting"
    """The WMS does not know its cluster yet: its statuses wait."""
    OPEN = "open"
    """Confirmed: statuses are sent as they change."""
    ENDING = "ending"
    """Its last statuses were accepted: only condor-rm and condor-complete may follow."""
    UNKNOWN = "unknown"
    """Completed, withdrawn, or never of this WMS: nothing is sent."""


@attrs.define
class _Taskforce:
    stage: Stage = Stage.UNKNOWN
    turn: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0


class Outbox:
    """The one speaker of confirmed taskforces; memory follows those that are not completed."""

    def __init__(self, wms: WMS, ledger: Ledger) -> None:
        self._wms = wms
        self._ledger = ledger
        self._taskforces: dict[str, _Taskforce] = {}
        self.reconciled = trio.Event()
        """Set when it is known which taskforces the WMS takes for not completed."""

    def stage(self, uuid: str) -> Stage:
        """What may be sent about a taskforce now."""
        taskforce = self._taskforces.get(uuid)
        return taskforce.stage if taskforce else Stage.UNKNOWN

    def set_stage(self, uuid: str, stage: Stage) -> None:
        """Say where a taskforce is."""
        taskforce = self._taskforces.setdefault(uuid, _Taskforce())
        taskforce.stage = stage
        self._forget_if_idle(uuid)

    def in_stage(self, stage: Stage) -> list[str]:
        """The taskforces in a stage."""
        return [uuid for uuid, taskforce in self._taskforces.items() if taskforce.stage is stage]

    def counts(self) -> Mapping[str, int]:
        """How many taskforces there are in each stage."""
        stages = [taskforce.stage.value for taskforce in self._taskforces.values()]
        return {stage: stages.count(stage) for stage in sorted(set(stages))}

    @asynccontextmanager
    async def turn(self, uuid: str) -> AsyncIterator[None]:
        """While this lasts nobody else tells the WMS of this taskforce's start, stop or end."""
        taskforce = self._taskforces.setdefault(uuid, _Taskforce())
        taskforce.users += 1
        try:
            async with taskforce.turn:
                yield
        finally:
            taskforce.users -= 1
            self._forget_if_idle(uuid)

    async def send_statuses(
        self, statuses: Mapping[str, CompoundStatuses], errors: Mapping[str, TopTaskErrors]
    ) -> None:
        """Send one batch until it is accepted; taskforces that the WMS does not know are not spoken of again."""
        unknown = await self._wms.send_statuses(statuses, errors)
        for uuid in unknown:
            log.warning("the WMS does not know this taskforce, its statuses are not sent again", taskforce=uuid)
            self.set_stage(uuid, Stage.UNKNOWN)

    async def confirm_stop(self, uuid: str) -> None:
        """Say that the removal was accepted; the caller has the taskforce's turn."""
        try:
            await self._wms.confirm_stop(uuid)
        except WMSNotFound:
            log.warning("the WMS does not know the taskforce whose stop it ordered", taskforce=uuid)
        await self._ledger.update(uuid, stopped_at=time.time())

    async def complete(self, uuid: str, ended_at: int) -> None:
        """Say, once, that the cluster has ended (epoch s); the taskforce's last statuses were accepted."""
        async with self.turn(uuid):
            if self.stage(uuid) is not Stage.ENDING:
                return
            try:
                await self._wms.complete(uuid, condor_complete_ts=ended_at)
            except WMSNotFound:
                log.warning("the WMS does not know the taskforce that completed", taskforce=uuid)
            else:
                log.info("taskforce completed", taskforce=uuid, ended_at=ended_at)
            await self._ledger.update(uuid, ended_at=ended_at, completed_at=time.time())
            self.set_stage(uuid, Stage.UNKNOWN)

    def adopt(self, open_taskforces: Iterable[tuple[str, int | None]]) -> None:
        """Take over, after a restart, what the WMS lists as not completed: (taskforce, cluster or None)."""
        for uuid, cluster_id in open_taskforces:
            if self.stage(uuid) is Stage.UNKNOWN:
                self.set_stage(uuid, Stage.STARTING if cluster_id is None else Stage.OPEN)
        self.reconciled.set()

    def _forget_if_idle(self, uuid: str) -> None:
        taskforce = self._taskforces[uuid]
        if taskforce.stage is Stage.UNKNOWN and not taskforce.users:
            del self._taskforces[uuid]
