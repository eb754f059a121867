"""Copies that replace an event: only when one is confirmed may the event itself be acknowledged.

A failed event goes back to its own queue, with the failures counted in its headers. One that failed too often is
*parked*: it goes to the dead-letter queue, or without one to its own queue, marked so that no pilot runs it. A broker
keeps a copy only under a message id of its own: some drop what they take for a repetition.
"""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import structlog

from ewms.pilot import events
from ewms.pilot.brokers.base import BrokerError, BrokerRefused, PublishRefused, Sink, Source
from ewms.secret import redact

log = structlog.stdlib.get_logger(__name__)

_MAX_ERROR = 2000
_ID_CHARS = 32


@attrs.frozen(kw_only=True)
class Copies:
    """Publishes the copies of events."""

    own_queue: Callable[[Source], AbstractAsyncContextManager[Sink]]
    """Opens a way to publish to the queue that a source takes from; used for one copy, because failures are rare."""
    deadletter: Sink | None

    async def failed(self, source: Source, event: events.Event, *, error: str, parked: bool) -> bool:
        """Publish `event` with one more failure; False if no queue takes it.

        Raises:
            BrokerLost: the broker of the event's own queue is out of reach.
        """
        headers = events.failed_headers(event, error=redact(error)[:_MAX_ERROR], parked=parked)
        body = events.encode(event.data, headers)
        if parked and await self.dead(event, body):
            return True
        return await self.again(source, event, body)

    async def dead(self, event: events.Event, body: bytes) -> bool:
        """Publish `body` to the dead-letter queue; False if there is none, or it does not take it."""
        if self.deadletter is None:
            return False
        try:
            await self.deadletter.publish(body, message_id=_message_id(event))
        except BrokerError as error:
            log.error("the dead-letter queue does not take an event; it stays in its own", error=str(error))
            return False
        return True

    async def again(self, source: Source, event: events.Event, body: bytes) -> bool:
        """Publish `body` at the end of the event's own queue; False if that does not take it."""
        try:
            async with self.own_queue(source) as sink:
                await sink.publish(body, message_id=_message_id(event))
        except (BrokerRefused, PublishRefused) as error:
            log.warning("an event's own queue does not take a copy of it", queue=source.queue, error=str(error))
            return False
        return True


def unchanged(event: events.Event) -> bytes:
    """The body of a copy of `event` that is the same event; its id must not come from the broker anew."""
    identity = {events.EVENT_ID: event.event_id, events.EVENT_ID_SOURCE: str(event.id_source)}
    return events.encode(event.data, {**event.headers, **identity})


def _message_id(event: events.Event) -> str:
    # Not the event's own id, which may be too long for a broker (255 bytes), or no UTF-8; the body has that.
    identity = hashlib.sha256(event.event_id.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{identity[:_ID_CHARS]}-{secrets.token_hex(4)}"
