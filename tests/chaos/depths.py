"""How many messages wait in RabbitMQ's queues: asked through pika, the client below oms-mqclient."""

from collections.abc import Sequence
from typing import Final

import trio

from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.secret import Secret

_TIMEOUT_S: Final = 5


async def rabbit_depths(address: str, token: Secret, queues: Sequence[str]) -> dict[str, int] | None:
    """Messages of each queue that nobody holds; 0 for one that is not there. None: the broker does not answer."""
    return await trio.to_thread.run_sync(_ask, address, token, tuple(queues))


def _ask(address: str, token: Secret, queues: Sequence[str]) -> dict[str, int] | None:
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
    found = dict.fromkeys(queues, 0)
    try:
        with pika.BlockingConnection(parameters) as connection:
            for queue in queues:
                try:
                    answer = connection.channel().queue_declare(queue, passive=True)
                    found[queue] = answer.method.message_count
                except pika.exceptions.ChannelClosedByBroker:
                    continue  # nobody has used it yet
    except (pika.exceptions.AMQPError, OSError):
        return None
    return found
