"""The protocol that every message broker adapter fulfils; the pilot knows nothing else of brokers.

Vocabulary: a *delivery* is one message handed to this pilot. It gets exactly one verdict: `ack` (its output is safe
at the broker), `reject` (its task failed here; the broker gives it to somebody and counts a failure where it can), or
`hand_back` (it was not tried, or not to its end: SIGTERM, lease, prefetched; no failure).

Every method may be cancelled. A verdict on a delivery that the broker already took back (the channel or connection it
came by is gone) raises nothing: the broker redelivers it by itself; the method returns False. RabbitMQ's
messages may have no id, and equal ones cannot be told apart; so its adapter returns False only where that is certain.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs

from ewms.secret import Secret


@attrs.frozen
class QueueAddress:
    """One queue as the pilot's settings name it."""

    queue: str
    broker_type: str
    """`rabbitmq`, `nats`, `pulsar`, `local`."""
    broker_address: str
    auth_token: Secret = Secret("")


@attrs.frozen(eq=False)
class Delivery:
    """One message as a broker handed it over."""

    body: bytes
    queue: str
    message_id: str | None = None
    headers: Mapping[str, Any] = attrs.field(factory=dict)
    """The broker's own message headers (not the ones in the body)."""
    returned: int = 0
    """How often the broker says that it got this message back before (0 where it cannot say)."""
    tag: Any = attrs.field(default=None, repr=False)
    """The adapter's own handle."""


class Source(Protocol):
    """Receives from one queue; obtained from `Broker.source`."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def receive(self) -> Delivery:
        """Wait, for ever if need be, for the next delivery.

        Cancelling it loses nothing. While the connection is down it waits for the reconnection.

        Raises:
            BrokerRefused: the broker will never let us (credentials, no such queue).
            BrokerLost: reconnecting was given up.
        """

    @property
    def listening_since(self) -> float | None:
        """Since when (of Trio's clock) it asks for messages without a break; None while its broker is out of reach."""

    def holds(self, delivery: Delivery) -> bool:
        """Whether it is without a verdict and, as far as we can know, the broker has not taken it back."""

    async def stop(self) -> None:
        """Take nothing more, and hand back what was not given out; verdicts can still be given."""

    async def ack(self, delivery: Delivery) -> bool:
        """Done: the broker may forget the message. False: it already took the delivery back."""

    async def reject(self, delivery: Delivery) -> bool:
        """The task failed here: requeue, and count it where the broker can."""

    async def hand_back(self, delivery: Delivery) -> bool:
        """Not (fully) tried here: requeue without counting it where the broker can tell."""


class Sink(Protocol):
    """Publishes to one queue; obtained from `Broker.sink`."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def publish(self, body: bytes, *, message_id: str) -> None:
        """Publish one message; return only after the broker confirmed that it is safe in the queue.

        Raises:
            BrokerRefused: no message of ours will ever be taken (permissions).
            PublishRefused: this message will never be taken (too large).
            QueueUnavailable: no message is taken for now.
            BrokerLost: reconnecting was given up.
        """


class Broker(Protocol):
    """One connection; `open_broker` makes it, and it reconnects by itself while it is open."""

    def source(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Source]:
        """Start consuming `queue` with a constant `prefetch`; leaving hands back what was not given out."""

    def sink(self, queue: str) -> AbstractAsyncContextManager[Sink]:
        """Get ready to publish to `queue`, which exists or is declared as the contract says."""


class BrokerError(Exception):
    """Something is wrong at or with a broker; the text never holds a token."""


class BrokerLost(BrokerError):
    """The broker is out of reach, and trying again was given up."""


class BrokerRefused(BrokerError):
    """The broker refused us, and will again: credentials, permissions, a missing queue."""


class PublishRefused(BrokerError):
    """The broker does not take this message (too large)."""


class QueueUnavailable(PublishRefused):
    """The broker takes no message for this queue (nacked: it is full; returned as unroutable: it is gone)."""
