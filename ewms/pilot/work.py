"""One delivery, from the broker to its one verdict.

    decode → run the task → publish the output to every outgoing queue (confirmed) → ack

A failed task → reject. Whatever else ends it (the grace is over, the broker or the machine fails, a bug) → hand back.
An event that failed here and comes back is not run here again: it is held, and handed back when the pilot ends. A
reject that the broker answers with the same event would otherwise turn for ever.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot import events
from ewms.pilot.brokers.base import Delivery, PublishRefused, Sink, Source
from ewms.pilot.errors import BadEvent, BadOutput, TaskError, is_okay
from ewms.pilot.report import Report
from ewms.pilot.settings import PilotSettings, extension
from ewms.pilot.stopping import Reason, Stopping
from ewms.pilot.tally import Tally
from ewms.pilot.task import Interrupted, Tasks

log = structlog.stdlib.get_logger(__name__)

VERDICT_LIMIT_S: Final = 10.0
"""A verdict that a broker does not take for so long is left to the broker: it redelivers by itself."""
MAX_REMEMBERED: Final = 10_000
"""Events that failed here; the oldest are forgotten."""

Verdict = Callable[[Delivery], Awaitable[bool]]


@attrs.frozen(kw_only=True)
class Work:
    """What is done with each delivery."""

    settings: PilotSettings
    pilot_id: str
    tasks: Tasks
    sinks: Sequence[Sink]
    stopping: Stopping
    tally: Tally
    report: Report
    _failed_here: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    _held: list[tuple[Source, Delivery]] = attrs.field(factory=list, init=False)

    async def handle(self, source: Source, delivery: Delivery) -> None:
        """Work on one delivery and give its verdict; held ones get theirs in `hand_back_held`."""
        verdict: Verdict | None = source.hand_back
        try:
            verdict = await self._verdict(source, delivery)
        finally:
            if verdict is None:
                self._held.append((source, delivery))
            else:
                await self._give(verdict, source, delivery)  # noqa: ASYNC102  it is shielded inside

    async def hand_back_held(self) -> None:
        """Hand back the events that failed here and came back."""
        while self._held:
            source, delivery = self._held.pop()
            await self._give(source.hand_back, source, delivery)

    async def _verdict(self, source: Source, delivery: Delivery) -> Verdict | None:
        if self.stopping.evicted:
            return source.hand_back
        key = _key(delivery)
        if key in self._failed_here:
            log.info("an event that failed here came back; it is held for others", queue=delivery.queue)
            return None
        began = trio.current_time()
        try:
            await self._complete(delivery)
        except Interrupted:
            return source.hand_back
        except TaskError as error:
            self._remember(key)
            self._count_failure(error, elsewhere=delivery.returned > 0)
            return source.reject
        self.tally.add_success(trio.current_time() - began)
        self._chirp_counts()
        return source.ack

    async def _complete(self, delivery: Delivery) -> None:
        began = trio.current_time()
        try:
            event = events.decode(delivery.body, delivery.message_id)
        except events.BadMessage as error:
            raise BadEvent(f"task failed: {error}") from error
        output = await self.tasks.run(event)
        if output is not None:
            await self._publish(event, output, trio.current_time() - began)

    async def _publish(self, event: events.Event, output: bytes, wall: float) -> None:
        headers = events.output_headers(
            event,
            pilot_id=self.pilot_id,
            task=f"{self.settings.task_image} {self.settings.task_args}",
            durations={"task": wall},
        )
        try:
            body = events.encode(events.outfile_data(output, extension(self.settings.outfile_ext)), headers)
            for sink in self.sinks:
                await sink.publish(body, message_id=headers[events.EVENT_ID])
        except (events.EventError, PublishRefused) as error:
            raise BadOutput(f"task failed: {error}") from error

    def _count_failure(self, error: TaskError, *, elsewhere: bool) -> None:
        text = str(error)
        self.tally.add_failure(text)
        self.report.error(text)
        self._chirp_counts()
        stops = self.settings.stop_listening_on_task_error and not elsewhere
        if stops and not is_okay(error, self.settings.okay_errors):
            log.warning("a task failed that had not failed elsewhere: taking no further events")
            self.stopping.stop_listening(Reason.TASK_ERROR)

    def _chirp_counts(self) -> None:
        self.report.counts(succeeded=self.tally.succeeded, failed=self.tally.failed)

    def _remember(self, key: str) -> None:
        self._failed_here[key] = None
        if len(self._failed_here) > MAX_REMEMBERED:
            self._failed_here.popitem(last=False)

    async def _give(self, verdict: Verdict, source: Source, delivery: Delivery) -> None:
        if verdict == source.hand_back:
            self.tally.handed_back += 1
        await give(verdict, delivery)


async def give(verdict: Verdict, delivery: Delivery) -> None:
    """Give a verdict, also when everything around it is cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + VERDICT_LIMIT_S) as limit:
        if not await verdict(delivery):
            log.warning("the broker had taken the event back before the verdict", queue=delivery.queue)
    if limit.cancelled_caught:
        log.error("the broker did not take the verdict", queue=delivery.queue, limit_s=VERDICT_LIMIT_S)


def _key(delivery: Delivery) -> str:
    """The same for each delivery of a message."""
    return delivery.message_id or hashlib.sha256(delivery.body).hexdigest()
