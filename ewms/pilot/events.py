"""Message body ↔ event, and event data ↔ the files of a task; pure.

The body is what `oms-mqclient` 2.x writes and reads: zstd-compressed UTF-8 JSON `{"headers": {…}, "data": …}`. Its
reader takes any zstd frame, with or without the content's size; its writer leaves `headers` empty.

JSON cannot carry bytes. Binary data travels as base64 text, said by the header `ewms-data-encoding: base64`: our
pilots hand the bytes on unharmed, other clients see the text and the header.

Headers of ours (all optional, all in the body, none in the broker's own headers):

| header | meaning |
|---|---|
| `ewms-event-id` | the event's id, the same on every delivery |
| `ewms-event-id-source` | where that id came from, on copies that a pilot made of an event |
| `ewms-data-encoding` | `base64` where `data` is binary |
| `ewms-failures` | how many tasks failed on this event so far, on any worker |
| `ewms-last-error` | the error text of the last one |
| `ewms-parked` | true: pilots leave this event alone |
| `ewms-input-event-id` | on an output: the event that it was made from |
| `ewms-input-event-id-source` | on an output: see `IdSource`; ids from `hash` are the same for equal events |
| `ewms-attempt` | on an output: 1 for the first run of the event, one more after each failure |
| `ewms-pilot` | on an output: the pilot that made it |
| `ewms-durations` | on an output: {name: seconds} |

An output's `ewms-event-id` is made from its input's id and from what was run, so that every output of one event and
one task has the same id, whichever pilot made it: consumers drop duplicates by it.
"""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from io import BytesIO
from typing import Any, Final

import attrs
import zstandard

EVENT_ID: Final = "ewms-event-id"
EVENT_ID_SOURCE: Final = "ewms-event-id-source"
DATA_ENCODING: Final = "ewms-data-encoding"
FAILURES: Final = "ewms-failures"
LAST_ERROR: Final = "ewms-last-error"
PARKED: Final = "ewms-parked"
INPUT_EVENT_ID: Final = "ewms-input-event-id"
INPUT_EVENT_ID_SOURCE: Final = "ewms-input-event-id-source"
ATTEMPT: Final = "ewms-attempt"
PILOT: Final = "ewms-pilot"
DURATIONS: Final = "ewms-durations"

_READ_BYTES: Final = 1 << 16
"""Decompressed at a time: the room is made before it is known how much comes."""

MAX_DATA_BYTES: Final = 512 * 1024 * 1024
"""The largest decompressed body that is read (bytes); RabbitMQ's own limit on a message is 512 MiB."""

_COMPRESSION_LEVEL: Final = 3  # oms-mqclient's
# Making them costs more than a small message. Each is done with one message before the next: no threads here.
_compressor: Final = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL)
_decompressor: Final = zstandard.ZstdDecompressor()
_BASE64: Final = "base64"
_HASH_CHARS: Final = 32
_MOST_FAILURES: Final = 1_000_000
"""More are somebody's nonsense: Python reads numbers of 4,300 digits, and does not write the one after the largest."""


class BadMessage(Exception):
    """A message body that no pilot can read; trying it elsewhere does not help."""


class EventError(Exception):
    """An event's data does not fit the task's files, or a task's output does not fit an event."""


class IdSource(StrEnum):
    """Who gave an event its id."""

    PRODUCER = "producer"
    """The producer, by the header `ewms-event-id`."""
    BROKER = "broker"
    """The broker's message id."""
    HASH = "hash"
    """Nobody: it is a hash of the body, so equal events cannot be told apart."""


@attrs.frozen
class Event:
    """One event as a pilot works on it."""

    event_id: str
    id_source: IdSource
    data: Any = attrs.field(repr=False)
    """`str`, `bytes`, or any other JSON value."""
    headers: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def failures(self) -> int:
        """How many tasks failed on it so far, as its headers say."""
        count = self.headers.get(FAILURES)
        return min(count, _MOST_FAILURES) if isinstance(count, int) and count > 0 else 0

    @property
    def attempt(self) -> int:
        """1 for the first run, one more after each failure."""
        return self.failures + 1

    @property
    def parked(self) -> bool:
        """Whether it failed too often and is to be left alone."""
        return self.headers.get(PARKED) is True


def decode(body: bytes, message_id: str | None, *, limit: int = MAX_DATA_BYTES) -> Event:
    """Read a message body; `message_id` is the broker's (None: it gave none).

    Raises:
        BadMessage: not zstd, larger than `limit` bytes once decompressed, not JSON, or without `data`.
    """
    message = _load(_decompress(body, limit))
    headers = message.get("headers") or {}
    if "data" not in message or not isinstance(headers, dict):
        raise BadMessage('the message is not {"headers": {…}, "data": …}')
    event_id, source = _identity(headers, message_id, body)
    return Event(event_id=event_id, id_source=source, data=_data_of(message["data"], headers), headers=headers)


def encode(data: Any, headers: Mapping[str, Any] | None = None, *, limit: float = math.inf) -> bytes:
    """The message body for `data` (`bytes`, or any JSON value) and `headers`.

    Raises:
        EventError: the data is no JSON value, or has more than `limit` bytes as JSON (base64 and escapes are longer).
    """
    headers = dict(headers or {})
    if isinstance(data, bytes):
        data = base64.b64encode(data).decode("ascii")
        headers[DATA_ENCODING] = _BASE64
    else:
        headers.pop(DATA_ENCODING, None)
    try:
        text = json.dumps({"headers": headers, "data": data})
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError(f"the data cannot be written as JSON: {error}") from error
    if len(text) > limit:
        raise EventError(f"the message would have {len(text)} bytes before it is compressed, more than {limit:.0f}")
    return _compressor.compress(text.encode())


def infile_bytes(data: Any, extension: str) -> bytes:
    """What a task's infile holds: text as UTF-8, bytes as they are, other values as JSON in a `.json` file.

    Raises:
        EventError: the value needs a `.json` file, is nested too deep, or its text cannot be written as UTF-8.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise EventError(f"the event's text cannot be written as UTF-8: {error.reason}") from error
    if not _is_json(extension):
        raise EventError(
            f"the event's data is {_kind(data)}, which needs a .json infile, but the infile extension is {extension!r}"
        )
    try:
        return json.dumps(data).encode()
    except RecursionError as error:  # less of the stack is left than when it was read
        raise EventError(f"the event's data cannot be written as JSON: {error}") from error


def outfile_data(raw: bytes, extension: str) -> Any:
    """The output event's data (where there is no outfile, nothing is sent, and there is nothing to ask here).

    An empty outfile is an empty string, in a `.json` file too, and is sent. Text is kept to the letter; what is not
    UTF-8 stays bytes.

    Raises:
        EventError: a `.json` file that is not JSON.
    """
    if _is_json(extension) and raw:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise EventError(f"the task's outfile is not valid JSON: {error}") from error
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def output_headers(
    event: Event,
    *,
    pilot_id: str,
    task: str,
    durations: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The headers of the output made from `event`; `task` says what was run (the same text for each of its pilots)."""
    identity = hashlib.sha256(f"{event.event_id}\n{task}".encode("utf-8", "backslashreplace")).hexdigest()
    return {
        EVENT_ID: identity[:_HASH_CHARS],
        INPUT_EVENT_ID: event.event_id,
        INPUT_EVENT_ID_SOURCE: str(event.id_source),
        ATTEMPT: event.attempt,
        PILOT: pilot_id,
        DURATIONS: {name: round(seconds, 3) for name, seconds in (durations or {}).items()},
    }


def failed_headers(event: Event, *, error: str, parked: bool) -> dict[str, Any]:
    """The headers of the copy of `event` that replaces it after one more failure; the event keeps its id."""
    return {
        **event.headers,
        EVENT_ID: event.event_id,
        EVENT_ID_SOURCE: str(event.id_source),
        FAILURES: event.failures + 1,
        LAST_ERROR: error,
        PARKED: parked,
    }


def _decompress(body: bytes, limit: int) -> bytearray:
    # The stream reader is the one way that neither trusts the size in the frame's header nor needs it.
    raw = bytearray()
    try:
        with _decompressor.stream_reader(BytesIO(body), read_across_frames=True) as reader:
            while len(raw) <= limit and (part := reader.read(_READ_BYTES)):
                raw += part
    except (zstandard.ZstdError, MemoryError) as error:
        raise BadMessage(f"the message is not zstd-compressed: {error}") from error
    if len(raw) > limit:
        raise BadMessage(f"the message is larger than {limit} bytes once decompressed")
    return raw


def _load(raw: bytearray) -> dict[str, Any]:
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"the message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadMessage("the message is JSON, but not an object")
    return message


def _identity(headers: Mapping[str, Any], message_id: str | None, body: bytes) -> tuple[str, IdSource]:
    given = headers.get(EVENT_ID)
    if isinstance(given, str) and given:
        source = headers.get(EVENT_ID_SOURCE)  # any JSON value: a list, say, is in no set
        return given, next((each for each in IdSource if each == source), IdSource.PRODUCER)
    if message_id:
        return message_id, IdSource.BROKER
    return hashlib.sha256(body).hexdigest()[:_HASH_CHARS], IdSource.HASH


def _data_of(data: Any, headers: Mapping[str, Any]) -> Any:
    encoding = headers.get(DATA_ENCODING)
    if encoding is None:
        return data
    if encoding != _BASE64 or not isinstance(data, str):
        raise BadMessage(f"the message says {DATA_ENCODING}: {encoding!r} of {_kind(data)}; only base64 text is known")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessage(f"the message's base64 data cannot be read: {error}") from error


def _is_json(extension: str) -> bool:
    return extension.lower().removeprefix(".") == "json"


_KINDS: Final[Mapping[type, str]] = {
    str: "text",
    dict: "an object",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _kind(data: Any) -> str:
    return _KINDS.get(type(data), type(data).__name__)
