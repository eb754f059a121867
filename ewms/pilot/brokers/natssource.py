"""Consuming from one queue on NATS: each free place is one request for one message, so nothing is hoarded.

A delivery belongs to us for as long as the server gets a sign of life of it in time, whichever connection that comes
by: what is in work survives a reconnection, and verdicts are given on the next connection if need be. NATS counts each
delivery, so a hand-back is counted like a rejection.
"""

import json
from collections import deque
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.pilot.brokers.base import BrokerError, BrokerLost, BrokerRefused, Delivery
from ewms.pilot.brokers.keptsource import KeptSource
from ewms.pilot.brokers.link import FIRST_WAIT, LONGEST_WAIT, WireLost
from ewms.pilot.brokers.natsaddress import QueueNames
from ewms.pilot.brokers.natsqueue import NatsLink, ensure_consumer
from ewms.pilot.brokers.natssink import message_id_of
from ewms.pilot.brokers.natswire import Consumer, Inbox, Incoming, NatsWire, NobodyThere, Status
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

_REQUEST_EXPIRES: Final = 30.0
# A request that the server did not end by itself is one that it does not know any more.
_REQUEST_GRACE: Final = 5.0
_REQUEST: Final = json.dumps({"batch": 1, "expires": int(_REQUEST_EXPIRES * 10**9)}).encode()
_VERDICT_TIMEOUT: Final = 5.0
_SIGNS_PER_WAIT: Final = 3
_REMEMBERED: Final = 10_000
"""Messages that are known when they come again; what is in work is always among them."""
_ACK, _NAK, _IN_PROGRESS = b"+ACK", b"-NAK", b"+WPI"
_HEARTBEAT, _EXPIRED = "100", "408"


@attrs.define(eq=False)
class Held:
    """A message that the server gave us and that has no verdict yet."""

    ack_subject: str
    valid_until: float
    """When the server takes it back, unless it gets a sign of life."""
    given_out: bool = False
    settling: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the server has not taken it back, as far as we can know."""
        return trio.current_time() < self.valid_until


class NatsSource(KeptSource):
    """See `ewms.pilot.brokers.base.Source`."""

    def __init__(self, link: NatsLink, queue: str, prefetch: int) -> None:
        super().__init__()
        self._link = link
        self._names = QueueNames(queue)
        self._prefetch = prefetch
        self._held: set[Held] = set()
        self._seen: dict[str, None] = {}
        self._requests: deque[float] = deque()
        self._changed = trio.Event()
        self._trouble = ""
        self._ack_wait = 0.0
        self._good_at: float | None = None
        self._inbox: Inbox | None = None

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._names.queue

    async def _consume_for_ever(self) -> NoReturn:
        began = trio.current_time()
        delays = backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            tried = trio.current_time()
            try:
                await self._consume()
            except BrokerRefused as error:
                # After a restart a broker may not know a queue for a while.
                if self._good_at is None or trio.current_time() - self._good_at > self._link.give_up_after:
                    raise
                log.warning("cannot consume any more, trying again", queue=self.queue, error=str(error))
            except (WireLost, NobodyThere) as error:
                if trio.current_time() - (self._good_at or began) > self._link.give_up_after:
                    raise BrokerLost(f"queue {self.queue!r} cannot be consumed: is JetStream on? {error}") from error
                log.warning("cannot consume for now, trying again", queue=self.queue, error=str(error))
            if trio.current_time() - tried > LONGEST_WAIT:
                delays = backoff(FIRST_WAIT, LONGEST_WAIT)
            await trio.sleep(next(delays))

    async def _consume(self) -> NoReturn:
        wire = await self._link.wire()
        consumer = await ensure_consumer(wire, self._names)
        with wire.while_open():
            await self._start(wire, consumer)
            try:
                await self._serve(wire)
            finally:
                self._listens(yes=False)
                self._good_at = trio.current_time()
        raise AssertionError("serving ends")

    async def _start(self, wire: NatsWire, consumer: Consumer) -> None:
        self._ack_wait = consumer.ack_wait
        self._requests.clear()
        self._trouble = ""
        if not self._stopped:
            self._inbox = await wire.open_inbox(self._on_message)
        if self._stopped:  # perhaps in the meantime
            await self._close_inbox()
        self._listens(yes=True)

    async def _serve(self, wire: NatsWire) -> NoReturn:
        signs_due = trio.current_time()
        while True:
            changed = self._changed
            if self._trouble:
                await self._close_inbox()
                raise NobodyThere(self._trouble)
            if trio.current_time() >= signs_due:
                signs_due = trio.current_time() + self._ack_wait / _SIGNS_PER_WAIT
                await self._show_life(wire)
            await self._ask_for_more(wire)
            with trio.move_on_at(min([signs_due, *self._requests])):
                await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _show_life(self, wire: NatsWire) -> None:
        async with trio.open_nursery() as nursery:
            for held in self._held:
                if held.is_ours:
                    nursery.start_soon(self._show_life_of, wire, held)

    async def _show_life_of(self, wire: NatsWire, held: Held) -> None:
        asked_at = trio.current_time()
        try:
            # With an answer: what stays in a stalled connection is no sign of life.
            await wire.ask(held.ack_subject, _IN_PROGRESS, within=self._ack_wait / (2 * _SIGNS_PER_WAIT))
        except WireLost as error:
            log.warning("the broker does not answer a sign of life", queue=self.queue, error=str(error))
        except NobodyThere as error:
            self._trouble = str(error)
        else:
            held.valid_until = asked_at + self._ack_wait

    async def _ask_for_more(self, wire: NatsWire) -> None:
        while self._requests and self._requests[0] <= trio.current_time():
            self._requests.popleft()
        while self._inbox is not None and len(self._held) + len(self._requests) < self._prefetch:
            self._requests.append(trio.current_time() + _REQUEST_EXPIRES + _REQUEST_GRACE)
            await wire.send(self._names.pull_subject, _REQUEST, reply=self._inbox.subject)

    def _on_message(self, message: Incoming | Status) -> None:
        if isinstance(message, Status) and message.code == _HEARTBEAT:
            return
        if self._requests:
            self._requests.popleft()
        if isinstance(message, Incoming):
            self._pushed.send_nowait(self._delivery(message))
        elif message.code != _EXPIRED:
            self._trouble = f"{message.code} {message.text}".strip()
        self._tell()

    def _delivery(self, message: Incoming) -> Delivery:
        held = Held(message.ack_subject, trio.current_time() + self._ack_wait)
        self._held.add(held)
        # A server that was killed may not know what it had delivered a moment before.
        was_here = self._was_here(message.sequence_id)
        return Delivery(
            body=message.body,
            queue=self.queue,
            message_id=message_id_of(message.headers) or message.sequence_id,
            headers=message.headers,
            returned=max(message.delivered - 1, int(was_here)),
            tag=held,
        )

    def _was_here(self, sequence_id: str) -> bool:
        """Whether this very message came before; it is noted."""
        was_here = sequence_id in self._seen
        self._seen[sequence_id] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return was_here

    async def receive(self) -> Delivery:
        """Wait for the next delivery that the server has not taken back."""
        while True:
            delivery = await self._next_pushed()
            held: Held = delivery.tag
            if self.holds(delivery):
                held.given_out = True
                return delivery
            self._forget(held)

    def holds(self, delivery: Delivery) -> bool:
        """Whether its time with us is not over."""
        held: Held = delivery.tag
        return held in self._held and not held.settling and held.is_ours

    async def ack(self, delivery: Delivery) -> bool:
        """Done; the server confirms it. A late one is told too: it may spare somebody the work."""
        return await self._verdict(delivery, _ACK)

    async def reject(self, delivery: Delivery) -> bool:
        """Have it delivered again, at once."""
        return await self._verdict(delivery, _NAK)

    async def hand_back(self, delivery: Delivery) -> bool:
        """Have it delivered again, at once; NATS counts this delivery too."""
        return await self._verdict(delivery, _NAK)

    async def _verdict(self, delivery: Delivery, answer: bytes) -> bool:
        held = delivery.tag
        if held not in self._held or held.settling:
            await trio.lowlevel.checkpoint()
            return False
        return await self._settle(held, answer)

    async def _settle(self, held: Held, answer: bytes) -> bool:
        held.settling = True
        is_ours = held.is_ours
        try:
            return (is_ours or answer == _ACK) and await self._answer(held, answer) and is_ours
        finally:
            self._forget(held)

    async def _answer(self, held: Held, answer: bytes) -> bool:
        """Send a verdict, on the next connection if need be, as long as it matters."""
        with trio.move_on_at(max(held.valid_until, trio.current_time() + _VERDICT_TIMEOUT)):
            while True:
                try:
                    wire = await self._link.wire()
                    await wire.ask(held.ack_subject, answer, within=_VERDICT_TIMEOUT)
                except WireLost:
                    await trio.sleep(FIRST_WAIT)
                except (NobodyThere, BrokerError) as error:
                    log.debug("verdict not taken", queue=self.queue, error=str(error))
                    return False
                else:
                    return True
        return False

    def _forget(self, held: Held) -> None:
        self._held.discard(held)
        self._tell()

    async def stop(self) -> None:
        """Ask for nothing more, and hand back what was not given out; signs of life and verdicts go on."""
        self._stopped = True
        await self._close_inbox()
        for held in list(self._held):
            if not held.given_out and not held.settling:
                await self._settle(held, _NAK)

    async def _close_inbox(self) -> None:
        inbox, self._inbox = self._inbox, None
        self._requests.clear()
        if inbox is not None:
            await inbox.close()

    async def close(self) -> None:
        """Stop, and hand back what has no verdict."""
        await self.stop()
        for held in list(self._held):
            if not held.settling:
                await self._settle(held, _NAK)
