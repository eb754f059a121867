"""Publishing to a queue that may take nothing for a while: full, without its majority, or gone."""

import structlog
import trio

from ewms.pilot.brokers import DEFAULT_GIVE_UP_AFTER
from ewms.pilot.brokers.base import BrokerLost, QueueUnavailable, Sink
from ewms.pilot.brokers.link import FIRST_WAIT, LONGEST_WAIT
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)


async def publish_patiently(sink: Sink, body: bytes, *, message_id: str) -> None:
    """Publish; a queue that takes no message at all is no fault of this one, which waits for it.

    Raises:
        BrokerLost: the queue took nothing for as long as a broker may be out of reach.
        PublishRefused: it takes others, but never this one.
    """
    deadline = trio.current_time() + DEFAULT_GIVE_UP_AFTER
    for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
        try:
            return await sink.publish(body, message_id=message_id)
        except QueueUnavailable as error:
            if trio.current_time() + wait > deadline:
                raise BrokerLost(str(error)) from error
            log.warning("an outgoing queue takes nothing, waiting", queue=sink.queue, error=str(error))
        await trio.sleep(wait)
    raise AssertionError("backoff ends")
