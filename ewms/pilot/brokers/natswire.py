"""NATS for its adapter: the only importer of nats-py, and the one place where its errors become ours.

A connection lives once: nats-py's own reconnecting is off. Of nats-py's JetStream part only the calls that manage
streams and consumers are used; pulling and acknowledging are plain messages, which the adapter sends itself, because
nats-py's `fetch` asks the server for messages that it forgets when it is cancelled.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, Header
from nats.js.errors import APIError, NoStreamResponseError

from ewms.pilot.brokers._asyncio import Border
from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import WireLost
from ewms.pilot.brokers.natsaddress import NatsAddress
from ewms.secret import redact

_T = TypeVar("_T")


def _only_for_debugging(_record: logging.LogRecord) -> bool:
    # What matters of its errors is raised here, and told by its callers.
    return logging.getLogger().isEnabledFor(logging.DEBUG)


logging.getLogger("nats.aio.client").addFilter(_only_for_debugging)

HEARTBEAT: Final = 10.0
"""Between two questions whether the server is still there (s); it may take as long to answer."""
_CONNECT_TIMEOUT: Final = 30
_CALL_TIMEOUT: Final = 5.0
_NEVER: Final = 10**6
_NOT_PERMITTED: Final = "permissions violation"
# What a server says to those whom it will not let in the next time either.
_REFUSALS: Final = ("authorization", "authentication expired", "authentication revoked", _NOT_PERMITTED)
_ACK_SUBJECT: Final = "$JS.ACK."


class Refused(Exception):
    """JetStream refused a call."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        """As in HTTP: 404 no such thing, 400 cannot be, 503 not now."""


class NobodyThere(Exception):
    """Nobody listens to that subject: no such stream or consumer, or JetStream is not up."""


@attrs.frozen
class Incoming:
    """One message of a stream as it came."""

    body: bytes
    headers: Mapping[str, str]
    ack_subject: str
    """Verdicts are sent there; unique for each delivery."""
    sequence_id: str
    """The same for each delivery of a message, and unique on its server."""
    delivered: int
    """How often it was delivered, this time included."""


@attrs.frozen
class Status:
    """What the server says instead of sending a message that was asked for."""

    code: str
    text: str


@attrs.frozen
class Consumer:
    """A durable consumer, as the server has it."""

    ack_wait: float
    """s until a delivery without a sign of life is delivered again."""
    max_ack_pending: int
    """How many deliveries of all its clients together may be without a verdict; -1: any number."""
    is_push: bool


@attrs.frozen
class Inbox:
    """A subject of our own, where the server sends what we ask for."""

    subject: str
    close: Callable[[], Awaitable[None]]
    """Want nothing more; returns when what was on its way has been given out. Cancelled, it hangs up on the server:
    what was on its way must not get lost in silence."""


class NatsWire:
    """One open connection."""

    def __init__(self, border: Border, client: Client) -> None:
        self._border = border
        self._client = client
        self._manager: JetStreamContext = client.jetstream(timeout=_CALL_TIMEOUT)
        self._pending: set[trio.CancelScope] = set()
        self._complaint = ""
        self.closed = trio.Event()
        """Set when the connection is gone."""

    @property
    def max_payload(self) -> int:
        """The largest message, headers included, that the server takes (bytes)."""
        return int(self._client.max_payload)

    @contextmanager
    def while_open(self) -> Iterator[None]:
        """The body is cancelled when the connection is gone.

        Raises:
            WireLost: the connection is gone.
        """
        with trio.CancelScope() as scope:
            self._pending.add(scope)
            if self.closed.is_set():
                scope.cancel()
            try:
                yield
            finally:
                self._pending.discard(scope)
        if scope.cancelled_caught:
            raise WireLost("the connection is gone")

    async def lost(self) -> None:
        """Return when the connection is gone, which a question now and then finds out."""
        while not self.closed.is_set():
            with trio.move_on_after(HEARTBEAT):
                await self.closed.wait()
                return
            try:
                await self._call(partial(self._client.flush, timeout=_NEVER), within=HEARTBEAT)
            except WireLost:
                self.abort()

    async def close(self) -> None:
        """Say good-bye if the other side still listens, and hang up."""
        try:
            if not self.closed.is_set():
                with suppress(WireLost):
                    await self._call(self._client.close)
        finally:
            self.abort()

    def abort(self) -> None:
        """Hang up at once."""
        _hang_up(self._client)
        self.gone()

    def complained(self, error: Exception) -> None:
        """The server says that something is wrong; what it does not permit it leaves without an answer."""
        if _NOT_PERMITTED in str(error).lower():
            self._complaint = _text(error)

    def gone(self) -> None:
        """The connection is gone; whoever waits for an answer learns it."""
        self.closed.set()
        for scope in self._pending:
            scope.cancel()

    async def open_inbox(self, on_message: Callable[[Incoming | Status], None]) -> "Inbox":
        """Have what is sent to a subject that nobody else has given to `on_message`."""

        async def deliver(message: Msg) -> None:
            on_message(_incoming(message))

        subject = str(self._client.new_inbox())
        subscription = await self._call(partial(self._client.subscribe, subject, cb=deliver, pending_bytes_limit=0))
        return Inbox(subject, partial(self._close_inbox, subscription))

    async def _close_inbox(self, subscription: Subscription) -> None:
        try:
            with suppress(WireLost):
                await self._call(subscription.drain)
        except trio.Cancelled:
            self.abort()
            raise

    async def send(self, subject: str, body: bytes = b"", *, reply: str = "") -> None:
        """Send without an answer."""
        await self._call(partial(self._client.publish, subject, body, reply=reply))

    async def ask(self, subject: str, body: bytes, *, within: float) -> None:
        """Send, and wait until the server says that it has dealt with it.

        Raises:
            NobodyThere: it cannot: stream or consumer are gone.
            WireLost: no answer: it may have dealt with it or not.
        """
        await self._call(partial(self._client.request, subject, body, timeout=_NEVER), within=within)

    async def store(self, subject: str, body: bytes, headers: Mapping[str, str], *, within: float) -> None:
        """Publish to a stream; return once it is stored.

        Raises:
            NobodyThere: no stream has that subject.
            Refused: the stream does not take it.
            WireLost: not confirmed: it may be stored or not.
        """
        await self._call(
            partial(self._manager.publish, subject, body, timeout=_NEVER, headers=dict(headers)), within=within
        )

    async def stream_exists(self, name: str) -> bool:
        """Whether there is such a stream."""
        try:
            await self._call(partial(self._manager.stream_info, name))
        except Refused as error:
            if error.code == 404:
                return False
            raise
        return True

    async def create_stream(self, name: str, subject: str) -> None:
        """Make a stream as nats-py's defaults have it; one that is there already, just so, is fine."""
        await self._call(partial(self._manager.add_stream, name=name, subjects=[subject]))

    async def consumer(self, stream: str, name: str) -> Consumer | None:
        """The durable consumer `name`, if it exists."""
        try:
            info = await self._call(partial(self._manager.consumer_info, stream, name))
        except Refused as error:
            if error.code == 404:
                return None
            raise
        return _consumer(info.config)

    async def create_consumer(
        self, stream: str, subject: str, name: str, *, ack_wait: float, max_waiting: int
    ) -> Consumer:
        """Make a durable pull consumer; one that is there already, just so, is fine."""
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=subject,
            ack_wait=ack_wait,
            max_ack_pending=-1,
            max_waiting=max_waiting,
        )
        info = await self._call(partial(self._manager.add_consumer, stream, config))
        return _consumer(info.config)

    async def _call(self, function: Callable[[], Awaitable[_T]], *, within: float = _CALL_TIMEOUT) -> _T:
        """Call into nats-py; every error that comes out is one of this module's, or `BrokerRefused`."""
        with trio.move_on_after(within), self.while_open():
            try:
                return await self._border.call(function)
            except (Exception, asyncio.CancelledError) as error:
                raise _ours(error) from error  # noqa: ASYNC104  asyncio's, which nats-py raises; Trio's is not caught
        complaint, self._complaint = self._complaint, ""
        if complaint:
            raise BrokerRefused(f"the broker does not permit it: {complaint}")
        raise WireLost(f"no answer within {within:g} s")


async def open_wire(border: Border, address: NatsAddress, *, name: str) -> NatsWire:
    """Connect and log in; `name` is what the broker shows of us.

    Raises:
        BrokerRefused: the broker does not want us.
        WireLost: out of reach.
    """
    client = Client()
    wire: NatsWire | None = None
    said: list[Exception] = []

    async def on_error(error: Exception) -> None:
        said[:] = [error]
        if wire is not None:
            wire.complained(error)

    async def on_closed() -> None:
        if wire is not None:
            wire.gone()

    try:
        with trio.move_on_after(_CONNECT_TIMEOUT):
            await border.call(
                partial(client.connect, error_cb=on_error, closed_cb=on_closed, **_options(address, name))
            )
            wire = NatsWire(border, client)
            return wire
    except (Exception, asyncio.CancelledError) as error:
        raise _why_not(said[-1] if said else error, address) from error  # noqa: ASYNC104  asyncio's, as above
    finally:
        if wire is None:
            _hang_up(client)
    raise WireLost(f"no answer within {_CONNECT_TIMEOUT} s")


def _options(address: NatsAddress, name: str) -> dict[str, Any]:
    return {
        "servers": list(address.servers),
        "name": name,
        "token": address.token.reveal() or None,
        "user": address.user or None,
        "password": address.password.reveal() or None,
        "tls": ssl.create_default_context() if address.tls else None,
        "connect_timeout": _CONNECT_TIMEOUT,
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "ping_interval": _NEVER,
        # Everything is written before a call returns: a flood waits for the server, and nothing overtakes.
        "pending_size": 1,
    }


def _why_not(error: BaseException, address: NatsAddress) -> Exception:
    text = _text(error)
    for_good = isinstance(error, ssl.SSLCertVerificationError) or any(word in text.lower() for word in _REFUSALS)
    return BrokerRefused(f"the broker at {address} refused us: {text}") if for_good else WireLost(text)


def _hang_up(client: Client) -> None:
    # There is no public way: closing in order waits for a peer that may not read.
    writer: asyncio.StreamWriter | None = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


def _incoming(message: Msg) -> Incoming | Status:
    headers: Mapping[str, str] = message.headers or {}
    if not message.reply.startswith(_ACK_SUBJECT):
        return Status(headers.get(Header.STATUS, ""), headers.get(Header.DESCRIPTION, ""))
    meta = message.metadata
    return Incoming(
        body=message.data,
        headers=headers,
        ack_subject=message.reply,
        # With the time, because a stream that is deleted and made anew counts from 1 again.
        sequence_id=f"{meta.stream}:{meta.sequence.stream}@{meta.timestamp:%Y%m%dT%H%M%S.%f}",
        delivered=meta.num_delivered,
    )


def _consumer(config: ConsumerConfig) -> Consumer:
    return Consumer(
        ack_wait=min([config.ack_wait or 30.0, *(config.backoff or ())]),
        max_ack_pending=config.max_ack_pending or -1,
        is_push=config.deliver_subject is not None,
    )


def _ours(error: BaseException) -> Exception:
    text = _text(error)
    if isinstance(error, NoRespondersError | NoStreamResponseError):
        return NobodyThere(text)
    if isinstance(error, APIError):
        return Refused(error.code or 500, error.description or text)
    return WireLost(text)


def _text(error: BaseException) -> str:
    words = str(error).removeprefix("nats: ").strip("'")
    return redact(words or type(error).__name__)
