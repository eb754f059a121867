"""One delivery, from the broker to its one verdict.

    decode → run the task → publish the output to every outgoing queue (confirmed) → ack

- A failed task: a copy with the failure counted in its headers replaces the event (confirmed), then ack; where the
  queue takes no copy, reject, and the broker counts.
- An event that failed too often, that came back too often (it may kill pilots), or that nobody can read is parked.
- A parked event, and one that failed here, is not run here: it goes to the end of its queue. When nothing was run since
  that was done last, it is held for a while before; longer each time, but not for ever: as long as it is held, a broker
  that keeps to the prefetch may hand over nothing else.
- An event that the broker took back while its task ran here waits for that task, and is acked with it.
- A delivery that the broker took back before its task began is dropped: whoever has the event now runs it.
- Whatever else ends it (the grace is over, the broker or the machine fails, a bug): hand back.
"""

import hashlib
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.pilot import events
from ewms.pilot.brokers.base import Delivery, PublishRefused, Sink, Source
from ewms.pilot.brokers.patient import publish_patiently
from ewms.pilot.copies import Copies, unchanged
from ewms.pilot.errors import BadEvent, BadOutput, TaskError, is_okay
from ewms.pilot.memory import Memory
from ewms.pilot.report import Report
from ewms.pilot.settings import PilotSettings, extension
from ewms.pilot.stopping import Reason, Stopping
from ewms.pilot.tally import Tally, last_line
from ewms.pilot.task import Interrupted, Tasks

log = structlog.stdlib.get_logger(__name__)

VERDICT_LIMIT_S: Final = 10.0
"""A verdict that a broker does not take for so long is left to the broker: it redelivers by itself."""
HELD_CHECK_S: Final = 5.0
"""How often held events are looked at."""

Verdict = Callable[[Delivery], Awaitable[bool]]
_HASH_CHARS: Final = 32


@attrs.frozen(kw_only=True)
class Outcome:
    """What is to become of a delivery."""

    verdict: Verdict
    later: Callable[[], Awaitable["Outcome"]] | None = None
    """Hold it, and ask this after a while."""
    settles: float | None = None
    """What was published for the event replaces it, as far as its copies have fewer failures than this."""
    again: bool = False
    """It was settled here before."""
    dropped: bool = False
    """The broker has it back already, as far as we can know; the verdict is for where we know too little."""


@attrs.frozen(kw_only=True)
class Taken:
    """A delivery in work."""

    source: Source
    delivery: Delivery
    event: events.Event
    unreadable: str
    """Why nobody can read it; "" if one can."""
    counts: Callable[[], None]
    """To be called when it is worked on, and for all that does not only come round again."""
    afterwards: AsyncExitStack
    """For what need not be done before the verdict; it is done in any case."""


@attrs.frozen(eq=False)
class Held:
    """A delivery that nothing is done with for a while."""

    taken: Taken
    later: Callable[[], Awaitable[Outcome]]
    """What is to become of it then."""


@attrs.frozen(kw_only=True)
class Work:
    """What is done with each delivery."""

    settings: PilotSettings
    pilot_id: str
    tasks: Tasks
    sinks: Sequence[Sink]
    copies: Copies
    stopping: Stopping
    tally: Tally
    report: Report
    memory: Memory = attrs.field(factory=Memory)
    _running: dict[str, list[trio.Event]] = attrs.field(factory=dict, init=False)
    """Event id → for each delivery of it, what is set when that has its verdict."""
    _held: list[Held] = attrs.field(factory=list, init=False)
    _one_at_a_time: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Of the held events: each copy may need a channel of its own."""

    async def handle(self, source: Source, delivery: Delivery, counts: Callable[[], None]) -> None:
        """Work on one delivery and give its verdict; held ones get theirs in `let_by_held` or `hand_back_held`.

        `counts` is called unless it only comes round again, and in any case when its task is run.
        """
        event, unreadable = read(delivery)
        if not self.memory.comes_round_again(event):
            counts()
        outcome = Outcome(verdict=source.hand_back)
        async with AsyncExitStack() as afterwards:
            taken = Taken(
                source=source,
                delivery=delivery,
                event=event,
                unreadable=unreadable,
                counts=counts,
                afterwards=afterwards,
            )
            with self._waited_for(event) as others:
                try:
                    outcome = await self._outcome(taken, others)
                finally:
                    await self._settle(outcome, taken)  # noqa: ASYNC102  it is shielded inside

    async def hand_back_held(self) -> None:
        """Hand back the events that were not to be run here."""
        with trio.CancelScope(shield=True):  # each is limited
            async with trio.open_nursery() as nursery:
                while self._held:
                    taken = self._held.pop().taken
                    nursery.start_soon(give, taken.source.hand_back, taken.delivery)

    async def let_by_held(self, in_flight: trio.Nursery) -> NoReturn:
        """Put held events at the end of their queues when their time has come, so that others can come."""
        while True:
            await trio.sleep(HELD_CHECK_S)
            for held in tuple(self._held):
                if not self.memory.hold_s(held.taken.event, now=trio.current_time()):
                    self._held.remove(held)
                    in_flight.start_soon(self._let_by, held)

    async def _let_by(self, held: Held) -> None:
        taken = held.taken
        outcome = Outcome(verdict=taken.source.hand_back, later=held.later)
        self.memory.passes_on(taken.event, now=trio.current_time())
        try:
            async with self._one_at_a_time:
                if not taken.source.holds(taken.delivery):
                    outcome = self._dropped(taken)
                elif self.stopping.reason is None:
                    outcome = await held.later()
        finally:
            await self._settle(outcome, taken)  # noqa: ASYNC102  it is shielded inside

    @contextmanager
    def _waited_for(self, event: events.Event) -> Iterator[Sequence[trio.Event]]:
        """Later ones of the same id can wait for the end of this; the ends of those that are here already."""
        all_of_it, mine = self._running.setdefault(event.event_id, []), trio.Event()
        others = tuple(all_of_it)
        all_of_it.append(mine)
        try:
            yield others
        finally:
            mine.set()
            all_of_it.remove(mine)
            if not all_of_it:
                del self._running[event.event_id]

    async def _settle(self, outcome: Outcome, taken: Taken) -> None:
        if outcome.later is not None:
            self._held.append(Held(taken, outcome.later))
            if self.stopping.reason is not None:  # nobody will ask later
                await self.hand_back_held()
            return
        self.tally.handed_back += outcome.verdict == taken.source.hand_back and not outcome.dropped
        accepted = await give(outcome.verdict, taken.delivery)
        if outcome.settles is not None:
            self.memory.settled(taken.event, newer=outcome.settles, acked=accepted)
        elif outcome.again and accepted:
            self.memory.acked_again(taken.event)

    async def _outcome(self, taken: Taken, others: Sequence[trio.Event]) -> Outcome:
        source, delivery, event = taken.source, taken.delivery, taken.event
        if delivery.returned:
            if others:
                log.info("an event came back whose task still runs here; it waits for that", event_id=event.event_id)
            for other in others:
                await other.wait()
            if self.memory.is_settled(event):
                log.info("an event came back that was settled here already", event_id=event.event_id)
                return Outcome(verdict=source.ack, again=True)
        if not source.holds(delivery):
            return self._dropped(taken)
        if self.stopping.evicted:
            return Outcome(verdict=source.hand_back)
        return await self._outcome_of_new(taken)

    def _dropped(self, taken: Taken) -> Outcome:
        log.info("the broker took an event back before its task began; it is not run", event_id=taken.event.event_id)
        return Outcome(verdict=taken.source.hand_back, dropped=True)

    async def _outcome_of_new(self, taken: Taken) -> Outcome:
        event = taken.event
        if event.parked or event.failures >= self.settings.max_failures:
            return await self._not_here(taken, parked=True)
        if taken.unreadable:
            return await self._failed(taken, BadEvent(f"task failed: {taken.unreadable}"), parks=True)
        if taken.delivery.returned >= self.settings.max_returns:
            return await self._park_unrun(taken)
        if self.memory.failed_here(event):
            return await self._not_here(taken, parked=False)
        return await self._run(taken)

    async def _run(self, taken: Taken) -> Outcome:
        event, began = taken.event, trio.current_time()
        self.memory.began()
        taken.counts()
        try:
            output = await self.tasks.run(event, taken.afterwards)
            if output is not None:
                await self._publish(event, output, trio.current_time() - began)
        except Interrupted:
            return Outcome(verdict=taken.source.hand_back)
        except TaskError as error:
            return await self._failed(taken, error, parks=event.failures + 1 >= self.settings.max_failures)
        self.tally.add_success(trio.current_time() - began)
        self._chirp_counts()
        return Outcome(verdict=taken.source.ack, settles=math.inf)

    async def _publish(self, event: events.Event, output: bytes, wall: float) -> None:
        headers = events.output_headers(
            event,
            pilot_id=self.pilot_id,
            task=f"{self.settings.task_image} {self.settings.task_args}",
            durations={"task": wall},
        )
        try:
            data = events.outfile_data(output, extension(self.settings.outfile_ext))
            body = events.encode(data, headers, limit=events.MAX_DATA_BYTES)  # the next pilot has to read it
            for sink in self.sinks:
                await publish_patiently(sink, body, message_id=headers[events.EVENT_ID])
        except (events.EventError, PublishRefused) as error:
            raise BadOutput(f"task failed: {error}") from error

    async def _failed(self, taken: Taken, error: TaskError, *, parks: bool) -> Outcome:
        source, delivery, event, text = taken.source, taken.delivery, taken.event, str(error)
        copy = copyable(event, delivery)
        parks = parks or copy is not event
        self.memory.failed(event)
        self.tally.add_failure(text)
        self.report.error(text)
        self._chirp_counts()
        if not event.failures and not delivery.returned:
            self._suspect_the_machine(error)  # before the copy, which would else come to this pilot
        copied = await self.copies.failed(source, copy, error=text, parked=parks)
        if copied and parks:
            self._tell_parked(event, text)
        # Where no copies are taken the broker counts, and a return may have been a failure.
        if copied and not event.failures and delivery.returned:
            self._suspect_the_machine(error)
        return Outcome(verdict=source.ack, settles=event.failures + 1) if copied else Outcome(verdict=source.reject)

    async def _park_unrun(self, taken: Taken) -> Outcome:
        source, delivery, event = taken.source, taken.delivery, taken.event
        text = f"the event came back {delivery.returned} times without a verdict: it may kill pilots"
        if not await self.copies.failed(source, copyable(event, delivery), error=text, parked=True):
            return Outcome(verdict=source.hand_back, later=partial(self._park_unrun, taken))
        self._tell_parked(event, text)
        return Outcome(verdict=source.ack, settles=event.failures + 1)

    async def _not_here(self, taken: Taken, *, parked: bool) -> Outcome:
        """Let an event by that is not run here, or hold it before."""
        self.tally.passed_on += parked
        # A broker drops what came back too often; the count of a copy begins anew.
        wears_out = taken.delivery.returned >= self.settings.max_returns
        if self.memory.hold_s(taken.event, now=trio.current_time()) and not wears_out:
            return self._hold(taken, parked=parked)
        self.memory.passes_on(taken.event, now=trio.current_time())
        return await self._to_the_end(taken, parked=parked)

    async def _to_the_end(self, taken: Taken, *, parked: bool) -> Outcome:
        source, event = taken.source, taken.event
        body = unchanged(copyable(event, taken.delivery))
        if parked and await self.copies.dead(event, body):
            self._tell_parked(event, "it had been parked in its own queue")
            return Outcome(verdict=source.ack)
        if await self.copies.again(source, event, body):
            return Outcome(verdict=source.ack)
        return self._hold(taken, parked=parked)

    def _hold(self, taken: Taken, *, parked: bool) -> Outcome:
        log.info("an event that is not run here is held", event_id=taken.event.event_id, parked=parked)
        later = partial(self._to_the_end, taken, parked=parked)
        return Outcome(verdict=taken.source.hand_back, later=later)

    def _tell_parked(self, event: events.Event, text: str) -> None:
        self.tally.parked += 1
        self.report.error(f"event parked: {text}")
        self._chirp_counts()
        log.error("event parked", event_id=event.event_id, failures=event.failures, error=last_line(text))

    def _suspect_the_machine(self, error: TaskError) -> None:
        if isinstance(error, BadEvent) or not self.settings.stop_listening_on_task_error:
            return
        if not is_okay(error, self.settings.okay_errors, self.settings.okay_error_pattern):
            log.warning("a task failed that had not failed elsewhere: taking no further events")
            self.stopping.stop_listening(Reason.TASK_ERROR)

    def _chirp_counts(self) -> None:
        self.report.counts(succeeded=self.tally.succeeded, failed=self.tally.failed, parked=self.tally.parked)


async def give(verdict: Verdict, delivery: Delivery) -> bool:
    """Give a verdict, also when everything around it is cancelled; False if it certainly came too late."""
    taken = True
    with trio.CancelScope(shield=True, deadline=trio.current_time() + VERDICT_LIMIT_S) as limit:
        taken = await verdict(delivery)
        if not taken:
            log.warning("the broker had taken the event back before the verdict", queue=delivery.queue)
    if limit.cancelled_caught:
        log.error("the broker did not take the verdict", queue=delivery.queue, limit_s=VERDICT_LIMIT_S)
    return taken


def copyable(event: events.Event, delivery: Delivery) -> events.Event:
    """`event`, or its whole body as its data: what is nested as deep as can just be read may be too deep to write."""
    try:
        unchanged(event)
    except events.EventError:
        return attrs.evolve(event, data=delivery.body, headers={events.PARKED: True})
    return event


def read(delivery: Delivery) -> tuple[events.Event, str]:
    """A delivery as an event, and why it cannot be read ("" if it can): its data is then the raw body."""
    try:
        return events.decode(delivery.body, delivery.message_id), ""
    except events.BadMessage as error:
        identity = hashlib.sha256(delivery.body).hexdigest()[:_HASH_CHARS]
        return events.Event(event_id=identity, id_source=events.IdSource.HASH, data=delivery.body), str(error)
