"""AMQP 0-9-1 for the RabbitMQ adapter: the only importer of aiormq, and the one place where its errors become ours.

A connection or a channel lives once. Reconnecting, and what to do about errors, is its callers' business.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import aiormq
import attrs
import trio
from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from ewms.pilot.brokers._asyncio import Border
from ewms.pilot.brokers.amqpaddress import AmqpAddress
from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import WireLost
from ewms.secret import redact

_T = TypeVar("_T")


def _only_for_debugging(_record: logging.LogRecord) -> bool:
    # It tells each error twice, with tracebacks; what matters of them is raised here, and told by its callers.
    return logging.getLogger().isEnabledFor(logging.DEBUG)


for _logger in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_logger).addFilter(_only_for_debugging)

_CONNECT_TIMEOUT: Final = 30.0
_CALL_TIMEOUT: Final = 30.0
_REFUSED_CODES: Final = frozenset({403, 530})
# A broker that is starting refuses a virtual host with the same code as one that does not exist.
_NOT_UP_YET: Final = "is down"


class ChannelRefused(Exception):
    """The broker refused a call and closed its channel for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        """AMQP's: 403 access refused, 404 no such queue, 405 locked, 406 precondition failed."""


class Returned(Exception):
    """No queue takes the published message."""


class Nacked(Exception):
    """The broker could not take the published message."""


@attrs.frozen
class Incoming:
    """One message as it came."""

    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]
    redelivered: bool
    delivery_tag: int


class AmqpWire:
    """One open connection."""

    def __init__(self, border: Border, connection: aiormq.Connection, transport: "_RememberedTransport") -> None:
        self._border = border
        self._connection = connection
        self._transport = transport
        self.closed = trio.Event()
        """Set when the connection is gone."""
        connection.closing.add_done_callback(lambda _: self.closed.set())

    async def open_channel(self, *, publisher_confirms: bool) -> "WireChannel":
        """Open a channel.

        Raises:
            WireLost: the connection is gone.
        """
        channel = await _call(
            self._border,
            partial(self._connection.channel, publisher_confirms=publisher_confirms, on_return_raises=True),
        )
        return WireChannel(self._border, self, channel)

    async def lost(self) -> None:
        """Return when the connection is gone; aiormq sends heartbeats, and misses those of a silent broker."""
        await self.closed.wait()

    async def close(self) -> None:
        """Say good-bye if the other side still listens, and hang up."""
        try:
            if not self.closed.is_set():
                with suppress(WireLost, ChannelRefused):
                    await _call(self._border, self._connection.close)
        finally:
            self.abort()

    def abort(self) -> None:
        """Hang up at once; unacknowledged messages go back to their queues."""
        self.closed.set()
        self._transport.abort()


class WireChannel:
    """One open channel."""

    def __init__(self, border: Border, wire: AmqpWire, channel: aiormq.abc.AbstractChannel) -> None:
        self._border = border
        self._wire = wire
        self._channel = channel
        self.closed = trio.Event()
        """Set when the channel is gone; its delivery tags mean nothing from then on."""
        self.consumer_ended = trio.Event()
        """Set when the consumer is gone; if the channel is not, deliveries may still get their verdicts there."""
        self.reason = "closed"
        """Why it, or its consumer, is gone, for people."""
        channel.closing.add_done_callback(self._on_closed)

    def _on_closed(self, closing: "asyncio.Future[Any]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if error is not None:
            self.reason = _text(error)
        self.closed.set()
        self.consumer_ended.set()

    async def declare(self, queue: str, *, passive: bool) -> None:
        """Declare a durable quorum queue, or (passive) only make sure that it exists.

        Raises:
            ChannelRefused: not allowed, no such queue, or it exists with other arguments.
            WireLost: the connection is gone.
        """
        arguments: dict[str, Any] | None = None if passive else {"x-queue-type": "quorum"}
        await self._call(
            partial(self._channel.queue_declare, queue, passive=passive, durable=True, arguments=arguments)
        )

    async def consume(self, queue: str, prefetch: int, on_message: Callable[[Incoming], None]) -> str:
        """Have up to `prefetch` unacknowledged messages pushed to `on_message`; returns the consumer's tag."""

        async def deliver(message: DeliveredMessage) -> None:
            on_message(_incoming(message))

        await self._call(partial(self._channel.basic_qos, prefetch_count=prefetch))
        self.consumer_ended = trio.Event()
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        answer = await self._call(partial(self._channel.basic_consume, queue, deliver))
        return str(answer.consumer_tag)

    async def _on_cancelled_by_broker(self, _frame: Any) -> None:
        self.reason = "the broker ended it: its queue was deleted or moved, or a delivery was too long in work"
        self.consumer_ended.set()

    async def stop_consuming(self, consumer_tag: str) -> None:
        """Have no more messages pushed."""
        await self._call(partial(self._channel.basic_cancel, consumer_tag))

    # Verdicts go to their end though cancelled: one that was not given keeps the message from everybody.

    async def ack(self, delivery_tag: int) -> None:
        """The broker may forget the message."""
        await self._call(partial(self._channel.basic_ack, delivery_tag), to_its_end=True)

    async def reject(self, delivery_tag: int) -> None:
        """Requeue, as a failure."""
        await self._call(partial(self._channel.basic_reject, delivery_tag, requeue=True), to_its_end=True)

    async def nack(self, delivery_tag: int) -> None:
        """Requeue, as not tried."""
        await self._call(partial(self._channel.basic_nack, delivery_tag, requeue=True), to_its_end=True)

    async def publish(self, queue: str, body: bytes, *, message_id: str, within: float) -> None:
        """Publish to a queue; return once the broker confirmed it. `message_id` is unique among those in flight.

        Raises:
            Returned: no such queue.
            Nacked: the broker could not take it.
            ChannelRefused: this or another message in flight was refused (406: too large).
            WireLost: not confirmed within `within` s, or the connection is gone: the broker may have it or not.
        """
        properties = aiormq.spec.Basic.Properties(delivery_mode=2, message_id=message_id)
        await self._call(
            partial(self._channel.basic_publish, body, routing_key=queue, properties=properties, mandatory=True),
            within=within,
        )

    async def close(self) -> None:
        """Close the channel; unacknowledged messages go back to their queue.

        Cancelled, it hangs up on a broker that does not answer, so that whoever leaves waits for it only once.
        """
        try:
            if not self.closed.is_set() and not self._wire.closed.is_set():
                with suppress(WireLost, ChannelRefused):
                    await _call(self._border, self._channel.close)
        except trio.Cancelled:
            self.abort()
            raise
        finally:
            self.closed.set()

    def abort(self) -> None:
        """Hang up on a broker that does not answer: the whole connection goes."""
        self._wire.abort()

    async def _call(
        self, function: Callable[[], Awaitable[_T]], *, within: float = _CALL_TIMEOUT, to_its_end: bool = False
    ) -> _T:
        if self.closed.is_set() or self._wire.closed.is_set():
            raise WireLost(self.reason)
        return await _call(self._border, function, within=within, to_its_end=to_its_end)


async def open_wire(border: Border, address: AmqpAddress, *, heartbeat: int, name: str) -> AmqpWire:
    """Connect and log in; `name` is what the broker shows of us.

    Raises:
        BrokerRefused: the broker does not want us: credentials, virtual host.
        WireLost: out of reach.
    """
    transport = _RememberedTransport(address.tls)

    async def connect() -> aiormq.Connection:
        made = _LoggedInConnection(address, heartbeat, name, transport)
        await made.connect()
        return made

    try:
        opened = await _call(border, connect, within=_CONNECT_TIMEOUT)
    except ChannelRefused as error:
        transport.abort()
        if error.code in _REFUSED_CODES and _NOT_UP_YET not in str(error):
            raise BrokerRefused(f"the broker at {address} refused us: {error}") from error
        raise WireLost(str(error)) from error
    except BaseException:
        transport.abort()
        raise
    return AmqpWire(border, opened, transport)


class _LoggedInConnection(aiormq.Connection):
    """Knows its credentials itself.

    In a URL they would show in errors, and aiormq makes an empty user name there a `guest`.
    """

    def __init__(self, address: AmqpAddress, heartbeat: int, name: str, transport: TransportFactory) -> None:
        url = URL.build(
            scheme="amqps" if address.tls else "amqp",
            host=address.host,
            port=address.port,
            path="/" + address.vhost.replace("/", "%2F") if address.vhost != "/" else "/",
            query={"heartbeat": str(heartbeat), "name": name},
        )
        super().__init__(url, transport_factory=transport)
        self.vhost = address.vhost
        self._address = address

    @staticmethod
    async def _rpc(request: Any, writer: asyncio.StreamWriter, frame_receiver: Any, wait_response: bool = True) -> Any:
        frames: Any = _Frames(frame_receiver)
        return await aiormq.Connection._rpc(request, writer, frames, wait_response)

    def _credentials_class(self, start_frame: aiormq.spec.Connection.Start) -> Any:
        return _Plain(self._address)


class _Frames:
    """Tells why the broker hung up during the log-in, which aiormq only calls an unexpected frame."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver

    async def get_frame(self) -> Any:
        received = await self._receiver.get_frame()
        if isinstance(received[2], aiormq.spec.Connection.Close):
            raise aiormq.exceptions.ConnectionClosed(received[2].reply_code, received[2].reply_text)
        return received


class _Plain:
    """The SASL mechanism PLAIN, in the shape of aiormq's own."""

    name = "PLAIN"

    def __init__(self, address: AmqpAddress) -> None:
        self._address = address

    def value(self, _connection: aiormq.Connection) -> "_Plain":
        return self

    def marshal(self) -> str:
        return f"\0{self._address.user}\0{self._address.password.reveal()}"


class _RememberedTransport(TransportFactory):
    """Remembers the socket, because hanging up on a peer that does not read is only possible there."""

    def __init__(self, tls: bool) -> None:
        self._factory: TransportFactory = TLSTransportFactory() if tls else TCPTransportFactory()
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._factory.create(url, **kwargs)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


def _incoming(message: DeliveredMessage) -> Incoming:
    properties = message.header.properties
    delivery = message.delivery
    assert isinstance(delivery, aiormq.spec.Basic.Deliver)
    return Incoming(
        body=message.body,
        message_id=properties.message_id,
        headers=properties.headers or {},
        redelivered=bool(delivery.redelivered),
        delivery_tag=delivery.delivery_tag or 0,
    )


async def _call(
    border: Border, function: Callable[[], Awaitable[_T]], *, within: float = _CALL_TIMEOUT, to_its_end: bool = False
) -> _T:
    """Call into aiormq; every error that comes out is one of this module's."""
    with trio.move_on_after(within):
        try:
            return await border.call(function, to_its_end=to_its_end)
        except (Exception, asyncio.CancelledError) as error:
            raise _ours(error) from error  # noqa: ASYNC104  asyncio's, which aiormq raises; Trio's is not caught
    raise WireLost(f"no answer within {within:g} s")


_CODES: Final[dict[type[BaseException], int]] = {
    aiormq.exceptions.ProbableAuthenticationError: 403,
    aiormq.exceptions.AuthenticationError: 403,
    aiormq.exceptions.ConnectionNotAllowed: 530,
    aiormq.exceptions.ChannelAccessRefused: 403,
    aiormq.exceptions.ChannelNotFoundEntity: 404,
    aiormq.exceptions.ChannelLockedResource: 405,
    aiormq.exceptions.ChannelPreconditionFailed: 406,
}


def _ours(error: BaseException) -> Exception:
    text = _text(error)
    if isinstance(error, aiormq.exceptions.PublishError):
        return Returned(text)
    if isinstance(error, aiormq.exceptions.DeliveryError):
        return Nacked(text)
    if (code := _CODES.get(type(error))) is not None:
        return ChannelRefused(code, text)
    if isinstance(error, aiormq.exceptions.ConnectionClosed) and error.args and error.args[0] in _REFUSED_CODES:
        return ChannelRefused(error.args[0], text)
    return WireLost(text)


def _text(error: BaseException) -> str:
    words = " ".join(str(arg) for arg in error.args if arg is not None and not isinstance(arg, type))
    return redact(words or type(error).__name__)
