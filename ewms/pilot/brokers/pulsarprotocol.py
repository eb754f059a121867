"""The little of Pulsar's binary protocol that its client library leaves to us: protobuf messages in frames; pure."""

from typing import Final

import attrs

_CONNECT, _ERROR = 2, 14
# Any broker that has token authentication speaks it; nothing newer is asked for.
_PROTOCOL_VERSION: Final = 15
_LONGEST_ANSWER: Final = 64 * 1024
_VARINT, _BYTES = 0, 2
# The field of a message's position.
_BATCH_SIZE: Final = 6


class NotPulsar(Exception):
    """What was received is not Pulsar's protocol."""


@attrs.frozen
class Answer:
    """What a broker says to those who want to connect."""

    error: int | None = None
    """As the protocol numbers them; None: welcome."""
    text: str = ""


def connect_frame(name: str, token: str) -> bytes:
    """What a client says first."""
    words = _field(1, name.encode()) + _field(4, _PROTOCOL_VERSION)
    if token:
        words += _field(5, b"token") + _field(3, token.encode())
    command = _field(1, _CONNECT) + _field(_CONNECT, words)
    return (4 + len(command)).to_bytes(4) + len(command).to_bytes(4) + command


def answer_in(received: bytes | bytearray) -> Answer | None:
    """What the first frame says; None if it is not all there yet.

    Raises:
        NotPulsar: it is no such frame.
    """
    size = int.from_bytes(received[:4])
    if size > _LONGEST_ANSWER:
        raise NotPulsar
    if len(received) < 8 or len(received) < 4 + size:
        return None
    command = _fields(bytes(received[8 : 8 + int.from_bytes(received[4:8])]))
    if command.get(1) != _ERROR:
        return Answer()
    error = _fields(_bytes(command.get(_ERROR)))
    number = error.get(2)
    return Answer(number if isinstance(number, int) else 0, _bytes(error.get(3)).decode(errors="replace"))


def batch_size(position: bytes) -> int:
    """How many messages were published together at a position."""
    size = _fields(position).get(_BATCH_SIZE, 1)
    return size if isinstance(size, int) else 1


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> dict[int, int | bytes]:
    """Field number → value, of a protobuf message with numbers and texts only."""
    fields: dict[int, int | bytes] = {}
    at = 0
    try:
        while at < len(data):
            key, at = _read_varint(data, at)
            value, at = _read_varint(data, at)
            if key & 7 == _VARINT:
                fields[key >> 3] = value
            elif key & 7 == _BYTES and at + value <= len(data):
                fields[key >> 3] = data[at : at + value]
                at += value
            else:
                raise NotPulsar
    except IndexError as error:
        raise NotPulsar from error
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""
