"""Pulsar for its adapter: the only importer of its client, and the one place where its errors become ours.

The client is a C++ library with threads of its own, and calls back in them. How the two worlds meet: a call is started
with a callback, which does nothing but hand the result to Trio by `TrioToken.run_sync_soon`, where the caller waits.
There are never more on their way than there are callers. A caller may be cancelled: the result is dropped when it
comes, also after Trio's end, because an exception in the library's threads would end the process. No thread of Python's
waits in the library, where it could neither be woken nor outlive the interpreter; so the library's calls that block are
not used, but those below them, by which its own asyncio module works. What it would log goes nowhere: loggers in
Python can deadlock with their callers, and what matters of its errors is raised here.

A connection lives once: the library would make it anew by itself, again and again, so it is watched.
"""

import os
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import _pulsar
import attrs
import pulsar
import trio
from pulsar import Result

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import CLOSE_TIMEOUT, WireLost
from ewms.pilot.brokers.pulsaraddress import SUBSCRIPTION, PulsarAddress
from ewms.pilot.brokers.pulsarhello import greet
from ewms.pilot.brokers.pulsarprotocol import batch_size

CONFIRM_TIMEOUT: Final = 60.0
"""For a message that is published to be confirmed (s)."""
_OPERATION_TIMEOUT: Final = 30
# A lost connection shows for 0.1 s, then the library has made a new one.
_WATCH_INTERVAL: Final = 0.05

_FOR_GOOD: Final = {
    Result.AuthenticationError: "",
    Result.AuthorizationError: "",
    Result.IncompatibleSchema: "",
    # The one thing that can be wrong: the library wants to keep messages back for each partition.
    Result.InvalidConfiguration: "it is a partitioned topic",
    Result.InvalidTopicName: "",
    Result.NotAllowedError: "",
    Result.TopicNotFound: "",
    Result.TopicTerminated: "",
    Result.UnsupportedVersionError: "",
}
"""What will not get better, and what more there is to say of it."""
_NEVER_TAKEN: Final = frozenset({Result.MessageTooBig, Result.InvalidMessage})


class NotTaken(Exception):
    """The broker will never take this message."""


@attrs.frozen(eq=False)
class Incoming:
    """One message of a subscription as it came."""

    body: bytes
    properties: Mapping[str, str]
    position: str
    """The same for each delivery of a message, and unique in its topic."""
    returned: int
    """How often it was given back before, as far as the broker remembers."""
    message: Any = attrs.field(repr=False)


class _Failed(Exception):
    """A call into the library failed."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.name)
        self.result = result


class _Call:
    """One call into the library, which is started with the callback that it needs."""

    def __init__(self, start: Callable[[Callable[..., None]], None]) -> None:
        self._came = trio.Event()
        self._outcome: tuple[Result, Any] = (Result.UnknownError, None)
        token = trio.lowlevel.current_trio_token()

        def on_result(result: Result, value: Any = None) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self.settle, result, value)

        self._callback = weakref.ref(on_result)
        start(on_result)

    def settle(self, result: Result, value: Any = None) -> None:
        """Say what it gives; the first word holds."""
        if not self._came.is_set():
            self._outcome = (result, value)
            self._came.set()

    async def result(self) -> Any:
        """Wait for what it gives.

        Raises:
            _Failed: it did not work.
        """
        await self._came.wait()
        result, value = self._outcome
        if result != Result.Ok:
            raise _Failed(result)
        return value

    async def over(self) -> None:
        """Wait until the library's thread is done with what is Python's."""
        while self._callback() is not None:  # noqa: ASYNC110  it tells nobody
            await trio.sleep(_WATCH_INTERVAL)


class _Wire:
    """One open client with one consumer or producer."""

    def __init__(self, client: "_Client", end: Any) -> None:
        self._client = client
        self._end = end
        self.closed = trio.Event()
        """Set when the connection is gone."""

    async def lost(self) -> None:
        """Return when the connection is gone."""
        while self._end.is_connected() and not self.closed.is_set():
            with trio.move_on_after(_WATCH_INTERVAL):
                await self.closed.wait()
        await self.close()

    async def close(self) -> None:
        """Say good-bye and hang up; cancelled, it still hangs up."""
        self.closed.set()
        await self._client.close()


class ConsumerWire(_Wire):
    """One consumer of the subscription that all readers of a topic share."""

    async def receive(self) -> Incoming:
        """Ask for one message, and wait for it; nothing else is ever sent to us.

        Cancelled, it loses nothing only if the wire is closed next: the message may come all the same.

        Raises:
            BrokerRefused: messages were published in batches, of which the library forgets all but the first.
            WireLost: the connection is gone.
        """
        try:
            message = await self._client.call(self._end.receive_async)
        except _Failed as error:
            self.closed.set()
            raise WireLost(str(error)) from error
        if batch_size(message.message_id().serialize()) != 1:
            raise BrokerRefused(
                f"{self._end.topic()} cannot be consumed: it has messages that were published in batches"
            )
        return Incoming(
            body=message.data(),
            properties=message.properties(),
            position=str(message.message_id()),
            returned=message.redelivery_count(),
            message=message,
        )

    async def ack(self, incoming: Incoming) -> None:
        """Done; it is sent within 0.1 s, or when the consumer is closed. Cancelled, it is done all the same.

        Raises:
            WireLost: the connection is gone.
        """
        try:
            await self._client.call(partial(self._end.acknowledge_async, incoming.message))
        except _Failed as error:
            raise WireLost(str(error)) from error

    async def nack(self, incoming: Incoming) -> None:
        """Give it back, counted; the library does so within 0.2 s. Cancelled, it is done all the same."""
        self._end.negative_acknowledge(incoming.message)
        await trio.lowlevel.checkpoint()


class ProducerWire(_Wire):
    """One producer of a topic."""

    async def send(self, body: bytes, properties: Mapping[str, str]) -> None:
        """Publish; return once the broker confirmed it. Many may be on their way at once.

        Raises:
            NotTaken: it never will be.
            WireLost: not confirmed: it may be published or not.
        """
        message = _pulsar.MessageBuilder().content(body)
        for name, value in properties.items():
            message.property(name, value)
        try:
            with trio.fail_after(CONFIRM_TIMEOUT):
                await self._client.call(partial(self._end.send_async, message.build()))
        except trio.TooSlowError as error:
            raise WireLost(f"not confirmed within {CONFIRM_TIMEOUT:g} s") from error
        except _Failed as error:
            if error.result in _NEVER_TAKEN:
                raise NotTaken(f"{error}, {len(body)} bytes") from error
            raise WireLost(str(error)) from error


async def open_consumer(where: PulsarAddress, topic: str, *, name: str) -> ConsumerWire:
    """Connect, and join the subscription of a topic.

    Raises:
        BrokerRefused: the broker does not want us, or the topic cannot be consumed.
        WireLost: out of reach.
    """
    async with _opening(where, topic, name) as client:
        return ConsumerWire(client, await client.subscribe(topic))


async def open_producer(where: PulsarAddress, topic: str, *, name: str) -> ProducerWire:
    """Connect, and get ready to publish to a topic whose subscription, which keeps what is published, is made first.

    Raises:
        BrokerRefused: the broker does not want us, or the topic cannot be published to.
        WireLost: out of reach.
    """
    async with _opening(where, topic, name) as client:
        consumer = await client.subscribe(topic)
        await client.call(consumer.close_async)
        return ProducerWire(client, await client.produce(topic))


@asynccontextmanager
async def _opening(where: PulsarAddress, topic: str, name: str) -> AsyncIterator["_Client"]:
    """A client that is closed if the body fails, whose errors become ours."""
    await greet(where, name)
    client = _Client(where)
    try:
        try:
            yield client
        except BaseException:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await client.close()
            raise
    except _Failed as error:
        raise _why_not(error, topic) from error


class _Client:
    """The library's client."""

    def __init__(self, where: PulsarAddress) -> None:
        self._client = pulsar.Client(
            str(where),
            authentication=pulsar.AuthenticationToken(where.token.reveal()) if where.token else None,
            operation_timeout_seconds=_OPERATION_TIMEOUT,
            stats_interval_in_seconds=0,
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
            # What Python trusts; the library's own default is certifi's list, and any host name.
            tls_trust_certs_file_path=ssl.get_default_verify_paths().cafile,
            tls_validate_hostname=True,
        )

        self._waiting: set[_Call] = set()

    async def call(self, start: Callable[[Callable[..., None]], None]) -> Any:
        """Start a call, and wait for what it gives.

        Raises:
            _Failed: it did not work, or the client was closed meanwhile.
        """
        call = _Call(start)
        self._waiting.add(call)
        try:
            return await call.result()
        finally:
            self._waiting.discard(call)

    async def subscribe(self, topic: str) -> Any:
        """Join the subscription, which is made if need be."""
        options = _pulsar.ConsumerConfiguration()
        options.consumer_type(pulsar.ConsumerType.Shared)
        options.subscription_initial_position(pulsar.InitialPosition.Earliest)
        # Nothing is sent ahead: each receive asks for one message.
        options.receiver_queue_size(0)
        options.negative_ack_redelivery_delay_ms(0)
        return await self.call(partial(self._client._client.subscribe_async, topic, SUBSCRIPTION, options))

    async def produce(self, topic: str) -> Any:
        """Get ready to publish to a topic."""
        options = _pulsar.ProducerConfiguration()
        options.batching_enabled(False)
        options.send_timeout_millis(int(CONFIRM_TIMEOUT * 1000))
        return await self.call(partial(self._client._client.create_producer_async, topic, options))

    async def close(self) -> None:
        """Close all that was opened with it, which ends all calls; cancelled, it hangs up."""
        call = _Call(self._client._client.close_async)
        try:
            with suppress(_Failed):
                await call.result()
        finally:
            self._client.shutdown()
            # Some would never hear of it: the library forgets who waits for a lookup, for one.
            for waiting in self._waiting:
                waiting.settle(Result.AlreadyClosed)
            # The library's last callback: if the interpreter ended just then, the process would be aborted.
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await call.over()


def _why_not(error: _Failed, topic: str) -> Exception:
    if error.result in _FOR_GOOD:
        return BrokerRefused(f"queue {topic!r} cannot be used: {_FOR_GOOD[error.result] or error}")
    return WireLost(str(error))
