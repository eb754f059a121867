"""Many small messages into a queue in little time: frames of AMQP 0-9-1 through a plain socket, thousands in one write.

Client libraries make some thousand publishes a second on a busy machine; a million would take many minutes.
"""

import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from pamqp import base, body, commands, frame, header
from pamqp.frame import FrameTypes

Frame = TypeVar("Frame", bound=base.Frame)

_CHANNEL = 1
_AT_ONCE = 5_000
_PATIENCE_S = 60.0
_SAID_AT_ONCE = 1 << 16


def fill(port: int, user: str, password: str, queue: str, messages: Iterable[bytes]) -> None:
    """Publish persistent messages; when it returns, the broker has taken all of them.

    Raises:
        OSError: the broker cannot be reached, or does not go on for a minute.
        RuntimeError: it refused something; the text is its own.
    """
    publish = frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), _CHANNEL)
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as broker:
        said = _replies(broker)
        _greet(broker, said, user, password)
        rest = iter(messages)
        while batch := list(islice(rest, _AT_ONCE)):
            broker.sendall(b"".join(publish + _content(message) for message in batch))
        # Answered after all that came before it: the broker works a channel's frames in their order.
        _ask(broker, said, commands.Channel.Close(200, "", 0, 0), commands.Channel.CloseOk, _CHANNEL)
        _ask(broker, said, commands.Connection.Close(200, "", 0, 0), commands.Connection.CloseOk, 0)


def _content(message: bytes) -> bytes:
    properties = commands.Basic.Properties(delivery_mode=2)
    head = header.ContentHeader(body_size=len(message), properties=properties)
    return frame.marshal(head, _CHANNEL) + frame.marshal(body.ContentBody(message), _CHANNEL)


def _greet(broker: socket.socket, said: Iterator[FrameTypes], user: str, password: str) -> None:
    broker.sendall(b"AMQP\x00\x00\x09\x01")
    next(said)
    login = commands.Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}")
    tune = _ask(broker, said, login, commands.Connection.Tune, 0)
    agreed = commands.Connection.TuneOk(tune.channel_max, tune.frame_max, heartbeat=0)
    broker.sendall(frame.marshal(agreed, 0))
    _ask(broker, said, commands.Connection.Open("/"), commands.Connection.OpenOk, 0)
    _ask(broker, said, commands.Channel.Open(), commands.Channel.OpenOk, _CHANNEL)


def _ask(
    broker: socket.socket, said: Iterator[FrameTypes], question: base.Frame, answer: type[Frame], channel: int
) -> Frame:
    broker.sendall(frame.marshal(question, channel))
    found = next(said)
    if not isinstance(found, answer):
        raise RuntimeError(f"{found.name} in place of {answer.name}: {getattr(found, 'reply_text', '')}")
    return found


def _replies(broker: socket.socket) -> Iterator[FrameTypes]:
    pending = b""
    while data := broker.recv(_SAID_AT_ONCE):
        pending += data
        while (size := _size_of_first(pending)) <= len(pending):
            _, _, found = frame.unmarshal(pending[:size])
            pending = pending[size:]
            yield found
    raise ConnectionError("the broker closed the connection")


def _size_of_first(data: bytes) -> int:
    """In bytes, as far as `data` tells it: type, channel and length stand before each frame, one byte after it."""
    return 8 + int.from_bytes(data[3:7], "big") if len(data) >= 7 else 8
