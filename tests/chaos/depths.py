"""How many messages wait in RabbitMQ's queues, and who consumes: asked through pika, the client below oms-mqclient."""

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.secret import Secret

_TIMEOUT_S: Final = 5
_NOT_FOUND: Final = 404
"""Nobody has used the queue yet."""


@attrs.frozen
class Depth:
    """A queue at some moment."""

    ready: int = 0
    """Messages that nobody holds."""
    consumers: int | None = 0
    """None: its broker does not tell."""


async def rabbit_depths(address: str, token: Secret, queues: Sequence[str]) -> dict[str, Depth] | None:
    """Each queue; one that is not there is empty. None: the broker does not answer."""
    return await trio.to_thread.run_sync(_ask, address, token, tuple(queues))


def _ask(address: str, token: Secret, queues: Sequence[str]) -> dict[str, Depth] | None:
    import pika  # not there on Python 3.14

    where = parse_address(address, token)
    parameters = pika.ConnectionParameters(
        where.host,
        where.port,
        "/",
        pika.PlainCredentials(where.user, where.password.reveal()),
        socket_timeout=_TIMEOUT_S,
        stack_timeout=_TIMEOUT_S,
        blocked_connection_timeout=_TIMEOUT_S,
    )
    found = dict.fromkeys(queues, Depth())
    try:
        with pika.BlockingConnection(parameters) as connection:
            for queue in queues:
                try:
                    answer = connection.channel().queue_declare(queue, passive=True).method
                    found[queue] = Depth(answer.message_count, answer.consumer_count)
                except pika.exceptions.ChannelClosedByBroker as error:
                    if error.reply_code != _NOT_FOUND:
                        return None
    except (pika.exceptions.AMQPError, OSError, AttributeError):
        # The last is how pika 1.4 closes a connection of which a channel was closed while it was opened.
        return None
    return found
