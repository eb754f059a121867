"""As much of a Pulsar broker as the pilot's adapter can see of one, over TCP, for the true client library.

It is written after the public description of Pulsar's binary protocol, and is no proof of what a broker does: it shows
that the adapter and the client library do together what the protocol asks for. Kept in memory: topics without
partitions, whose messages go to the shared subscriptions that exist when they come.
"""

import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from itertools import count
from math import inf

import attrs
import trio

from ewms.secret import Secret

Value = int | bytes | str
Position = tuple[int, int]
MAX_MESSAGE_SIZE = 5 * 1024 * 1024
_SHARED = 1


class Command(IntEnum):
    """The type of a frame, which is the number of its field too."""

    CONNECT = 2
    CONNECTED = 3
    SUBSCRIBE = 4
    PRODUCER = 5
    SEND = 6
    SEND_RECEIPT = 7
    SEND_ERROR = 8
    MESSAGE = 9
    ACK = 10
    FLOW = 11
    SUCCESS = 13
    ERROR = 14
    CLOSE_PRODUCER = 15
    CLOSE_CONSUMER = 16
    PRODUCER_SUCCESS = 17
    PING = 18
    PONG = 19
    REDELIVER = 20
    PARTITIONS = 21
    PARTITIONS_RESPONSE = 22
    LOOKUP = 23
    LOOKUP_RESPONSE = 24


class ServerError(IntEnum):
    """Why a broker refuses."""

    METADATA = 1
    PERSISTENCE = 2
    AUTHENTICATION = 3
    AUTHORIZATION = 4
    NOT_READY = 6
    QUOTA_EXCEEDED = 7
    TOPIC_NOT_FOUND = 11
    TERMINATED = 15
    NOT_ALLOWED = 22


def encode(*fields: tuple[int, Value]) -> bytes:
    """A protobuf message."""
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Fields:
    """A protobuf message that was read: field number → its values."""

    def __init__(self, data: bytes) -> None:
        self._values: dict[int, list[int | bytes]] = {}
        self._data, self._at = data, 0
        while self._at < len(data):
            key = self._read_varint()
            self._values.setdefault(key >> 3, []).append(self._read(key & 7))

    def _read(self, kind: int) -> int | bytes:
        if kind == 0:
            return self._read_varint()
        size = {1: 8, 5: 4}.get(kind) or self._read_varint()
        self._at += size
        return self._data[self._at - size : self._at]

    def _read_varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def number(self, field: int, default: int = 0) -> int:
        (value,) = self._values.get(field, [default])[-1:]
        assert isinstance(value, int)
        return value

    def text(self, field: int) -> str:
        (value,) = self._values.get(field, [b""])[-1:]
        assert isinstance(value, bytes)
        return value.decode()

    def messages(self, field: int) -> "list[Fields]":
        return [Fields(value) for value in self._values.get(field, []) if isinstance(value, bytes)]


@attrs.define(eq=False)
class Subscription:
    """What its consumers share: what waits, and how often each message was given back."""

    name: str
    waiting: dict[Position, bytes] = attrs.field(factory=dict)
    returned: Counter[Position] = attrs.field(factory=Counter)
    consumers: "list[Consumer]" = attrs.field(factory=list)

    def dispatch(self) -> None:
        """Give what waits to those who asked for it, in turn, the oldest first."""
        for position in sorted(self.waiting):
            ready = next((each for each in self.consumers if each.permits), None)
            if ready is None:
                return
            self.consumers.remove(ready)
            self.consumers.append(ready)
            ready.give(position, self.waiting.pop(position), self.returned[position])

    def take_back(self, positions: Iterable[Position], held: dict[Position, bytes]) -> None:
        """What a consumer held waits again."""
        for position in positions:
            if position in held:
                self.waiting[position] = held.pop(position)
        self.dispatch()


@attrs.define(eq=False)
class Consumer:
    """One reader of a subscription."""

    connection: "Connection"
    number: int
    subscription: Subscription
    permits: int = 0
    held: dict[Position, bytes] = attrs.field(factory=dict)

    def give(self, position: Position, message: bytes, returned: int) -> None:
        self.permits -= 1
        self.held[position] = message
        place = encode((1, position[0]), (2, position[1]))
        self.connection.send(Command.MESSAGE, (1, self.number), (2, place), (3, returned), payload=message)

    def leave(self) -> None:
        self.subscription.consumers.remove(self)
        self.subscription.take_back(list(self.held), self.held)


@attrs.define(eq=False)
class Standin:
    """The broker; its attributes are a test's levers."""

    host: str
    port: int
    token: Secret
    topics: dict[str, dict[str, Subscription]] = attrs.field(factory=dict)
    partitions: int = 0
    """Of each topic that somebody asks for."""
    refuse: dict[Command, ServerError] = attrs.field(factory=dict)
    """How to answer to a command instead of obeying."""
    ignore: set[Command] = attrs.field(factory=set)
    """What it does not answer to."""
    confirms: bool = True
    """Whether what was published is said to be safe; it is anyway."""
    connections: "set[Connection]" = attrs.field(factory=set)
    seen: list[Command] = attrs.field(factory=list)
    _entries: Iterable[int] = attrs.field(factory=count)

    @property
    def address(self) -> str:
        return f"pulsar://{self.host}:{self.port}"

    def subscription(self, topic: str, name: str) -> Subscription:
        return self.topics.setdefault(topic, {}).setdefault(name, Subscription(name))

    def publish(self, topic: str, message: bytes) -> Position:
        position = (1, next(iter(self._entries)))
        for subscription in self.topics.get(topic, {}).values():
            subscription.waiting[position] = message
            subscription.dispatch()
        return position

    async def until_seen(self, command: Command, times: int = 1) -> None:
        with trio.fail_after(60):
            while self.seen.count(command) < times:  # noqa: ASYNC110  nobody tells
                await trio.sleep(0.02)

    def unload(self, topic: str) -> None:
        """Send its readers away, as a broker does that hands a topic over to another one."""
        for subscription in self.topics[topic].values():
            for consumer in list(subscription.consumers):
                consumer.connection.close_consumer(consumer)

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = Connection(self)
        self.connections.add(connection)
        try:
            await connection.run(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.connections.discard(connection)
            connection.gone()


class Connection:
    """One client's connection."""

    def __init__(self, broker: Standin) -> None:
        self._broker = broker
        self._consumers: dict[int, Consumer] = {}
        self._producers: dict[int, str] = {}
        self._to_send, self._outgoing = trio.open_memory_channel[bytes](inf)
        self._handlers: dict[Command, Callable[[Fields, bytes], None]] = {
            Command.CONNECT: self._connect,
            Command.PARTITIONS: self._answer_partitions,
            Command.LOOKUP: self._answer_lookup,
            Command.SUBSCRIBE: self._subscribe,
            Command.PRODUCER: self._produce,
            Command.SEND: self._store,
            Command.FLOW: self._flow,
            Command.ACK: self._ack,
            Command.REDELIVER: self._redeliver,
            Command.CLOSE_CONSUMER: self._close_consumer,
            Command.CLOSE_PRODUCER: self._close_producer,
            Command.PING: lambda _fields, _payload: self.send(Command.PONG),
            Command.PONG: lambda _fields, _payload: None,
        }

    async def run(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream)
            received = bytearray()
            async for data in stream:
                received += data
                while len(received) >= 4 and len(received) >= (size := 4 + struct.unpack_from(">I", received)[0]):
                    self._obey(bytes(received[4:size]))
                    del received[:size]
            nursery.cancel_scope.cancel()

    async def _write(self, stream: trio.SocketStream) -> None:
        async with stream, self._outgoing:
            async for data in self._outgoing:
                await stream.send_all(data)

    def hang_up(self) -> None:
        """After what is to be sent."""
        self._to_send.close()

    def gone(self) -> None:
        for consumer in self._consumers.values():
            consumer.leave()
        self._consumers.clear()

    def close_consumer(self, consumer: Consumer) -> None:
        del self._consumers[consumer.number]
        consumer.leave()
        self.send(Command.CLOSE_CONSUMER, (1, consumer.number), (2, 0))

    def send(self, kind: Command, *fields: tuple[int, Value], payload: bytes = b"") -> None:
        command = encode((1, kind), (kind, encode(*fields)))
        frame = struct.pack(">I", len(command)) + command + payload
        # Who hangs up is told nothing more.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._to_send.send_nowait(struct.pack(">I", len(frame)) + frame)

    def _obey(self, frame: bytes) -> None:
        (size,) = struct.unpack_from(">I", frame)
        envelope = Fields(frame[4 : 4 + size])
        kind = Command(envelope.number(1))
        self._broker.seen.append(kind)
        (fields,) = envelope.messages(kind)
        if kind in self._broker.ignore:
            return
        if kind in self._broker.refuse:
            self._refuse(kind, fields, self._broker.refuse[kind])
        else:
            self._handlers[kind](fields, frame[4 + size :])

    def _refuse(self, kind: Command, fields: Fields, error: ServerError) -> None:
        text = f"the stand-in says {error.name}"
        if kind is Command.SEND:
            self.send(Command.SEND_ERROR, (1, fields.number(1)), (2, fields.number(2)), (3, error), (4, text))
        elif kind is Command.PARTITIONS:
            self.send(Command.PARTITIONS_RESPONSE, (2, fields.number(2)), (3, 1), (4, error), (5, text))
        elif kind is Command.LOOKUP:
            self.send(Command.LOOKUP_RESPONSE, (3, 2), (4, fields.number(2)), (6, error), (7, text))
        else:
            request = {Command.SUBSCRIBE: 5, Command.PRODUCER: 3}[kind]
            self.send(Command.ERROR, (1, fields.number(request)), (2, error), (3, text))

    def _connect(self, fields: Fields, _payload: bytes) -> None:
        if fields.text(3) != self._broker.token.reveal():
            self.send(Command.ERROR, (1, -1), (2, ServerError.AUTHENTICATION), (3, "Failed to authenticate"))
            self.hang_up()
            return
        self.send(Command.CONNECTED, (1, "stand-in"), (2, min(fields.number(4), 19)), (3, MAX_MESSAGE_SIZE), (4, b""))

    def _answer_partitions(self, fields: Fields, _payload: bytes) -> None:
        self.send(Command.PARTITIONS_RESPONSE, (1, self._broker.partitions), (2, fields.number(2)), (3, 0))

    def _answer_lookup(self, fields: Fields, _payload: bytes) -> None:
        # Whoever came through a proxy shall go on through it.
        self.send(Command.LOOKUP_RESPONSE, (1, self._broker.address), (3, 1), (4, fields.number(2)), (5, 1), (8, 1))

    def _subscribe(self, fields: Fields, _payload: bytes) -> None:
        assert fields.number(3) == _SHARED
        subscription = self._broker.subscription(fields.text(1), fields.text(2))
        consumer = Consumer(self, fields.number(4), subscription)
        self._consumers[consumer.number] = consumer
        subscription.consumers.append(consumer)
        self.send(Command.SUCCESS, (1, fields.number(5)))

    def _produce(self, fields: Fields, _payload: bytes) -> None:
        self._producers[fields.number(2)] = fields.text(1)
        name = fields.text(4) or f"standin-{id(self)}-{fields.number(2)}"
        self.send(Command.PRODUCER_SUCCESS, (1, fields.number(3)), (2, name), (3, -1), (4, b""))

    def _store(self, fields: Fields, payload: bytes) -> None:
        ledger, entry = self._broker.publish(self._producers[fields.number(1)], payload)
        if self._broker.confirms:
            place = encode((1, ledger), (2, entry))
            self.send(Command.SEND_RECEIPT, (1, fields.number(1)), (2, fields.number(2)), (3, place))

    def _flow(self, fields: Fields, _payload: bytes) -> None:
        if consumer := self._consumers.get(fields.number(1)):
            consumer.permits += fields.number(2)
            consumer.subscription.dispatch()

    def _ack(self, fields: Fields, _payload: bytes) -> None:
        if consumer := self._consumers.get(fields.number(1)):
            for place in fields.messages(3):
                position = (place.number(1), place.number(2))
                # Whoever has it now: a message is acknowledged for the whole subscription.
                consumer.subscription.waiting.pop(position, None)
                for each in consumer.subscription.consumers:
                    each.held.pop(position, None)

    def _redeliver(self, fields: Fields, _payload: bytes) -> None:
        if consumer := self._consumers.get(fields.number(1)):
            named = [(place.number(1), place.number(2)) for place in fields.messages(2)]
            returned = [position for position in named or list(consumer.held) if position in consumer.held]
            consumer.subscription.returned.update(returned)
            consumer.subscription.take_back(returned, consumer.held)

    def _close_consumer(self, fields: Fields, _payload: bytes) -> None:
        if consumer := self._consumers.pop(fields.number(1), None):
            consumer.leave()
        self.send(Command.SUCCESS, (1, fields.number(2)))

    def _close_producer(self, fields: Fields, _payload: bytes) -> None:
        self._producers.pop(fields.number(1), None)
        self.send(Command.SUCCESS, (1, fields.number(2)))


@asynccontextmanager
async def open_standin(token: str = "") -> AsyncIterator[Standin]:
    """A broker on a free port; who connects must have this token."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()[:2]
    standin = Standin(host, port, Secret(token))
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, standin.serve, [listener])
        yield standin
        nursery.cancel_scope.cancel()
