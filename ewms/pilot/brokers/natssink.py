"""Publishing to one queue on NATS: confirmed by its stream, and again if need be."""

import uuid
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

import structlog
import trio

from ewms.pilot.brokers.base import BrokerLost, PublishRefused, QueueUnavailable
from ewms.pilot.brokers.link import FIRST_WAIT, LONGEST_WAIT, WireLost
from ewms.pilot.brokers.natsaddress import QueueNames
from ewms.pilot.brokers.natsqueue import NatsLink, ensure_stream
from ewms.pilot.brokers.natswire import NobodyThere, Refused
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

MESSAGE_ID: Final = "Ewms-Message-Id"
"""Header: the message's id, percent-encoded. Not NATS's own, by which the server drops what it takes for duplicates."""
FOREIGN_MESSAGE_ID: Final = "Nats-Msg-Id"
_EXPECTED_STREAM: Final = "Nats-Expected-Stream"
_CONFIRM_TIMEOUT: Final = 60.0
# A message that a stream refuses for now may be taken a little later (no leader), or never (a full stream).
_REFUSALS: Final = 5


class NatsSink:
    """See `ewms.pilot.brokers.base.Sink`."""

    def __init__(self, link: NatsLink, queue: str) -> None:
        self._link = link
        self._names = QueueNames(queue)

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._names.queue

    async def open(self) -> None:
        """Make sure that the stream exists."""
        deadline = trio.current_time() + self._link.give_up_after
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                await ensure_stream(await self._link.wire(), self._names)
            except (WireLost, NobodyThere) as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(f"queue {self.queue!r} cannot be opened: is JetStream on? {error}") from error
                log.warning("cannot open the queue yet, trying again", queue=self.queue, error=str(error))
            else:
                return
            await trio.sleep(wait)

    async def publish(self, body: bytes, *, message_id: str) -> None:
        """Publish, again if need be, until the stream confirmed it.

        What was confirmed without our hearing of it is recognized by the server for two minutes (its default).
        """
        headers = {
            MESSAGE_ID: quote(message_id),
            # Of this call: two messages with one id are two messages.
            FOREIGN_MESSAGE_ID: uuid.uuid4().hex,
            _EXPECTED_STREAM: self._names.stream,
        }
        deadline = trio.current_time() + self._link.give_up_after
        refusals = 0
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                await self._try(body, headers)
            except (Refused, NobodyThere, WireLost) as error:
                refusals += isinstance(error, Refused)
                if refusals >= _REFUSALS:
                    raise QueueUnavailable(f"queue {self.queue!r} does not take messages (full?): {error}") from error
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(f"the broker took no message for queue {self.queue!r}: {error}") from error
                log.warning("message not confirmed, publishing again", queue=self.queue, error=str(error))
            else:
                return
            await trio.sleep(wait)

    async def _try(self, body: bytes, headers: dict[str, str]) -> None:
        wire = await self._link.wire()
        size = len(body) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12
        if size > wire.max_payload:
            raise PublishRefused(
                f"the message for queue {self.queue!r} has {size} bytes, and the broker takes {wire.max_payload}"
            )
        try:
            await wire.store(self._names.subject, body, headers, within=_CONFIRM_TIMEOUT)
        except Refused as error:
            if error.code >= 500:
                raise
            raise PublishRefused(f"queue {self.queue!r} does not take this message: {error}") from error
        except NobodyThere as error:
            nobody = error
        else:
            return
        # JetStream may be on its way up; but then it does not answer this either.
        if not await wire.stream_exists(self._names.stream):
            raise QueueUnavailable(f"there is no queue {self.queue!r}: {nobody}") from nobody
        raise nobody


def message_id_of(headers: Mapping[str, str]) -> str | None:
    """The id that a message's producer gave it."""
    if own := headers.get(MESSAGE_ID):
        return unquote(own)
    return headers.get(FOREIGN_MESSAGE_ID)
