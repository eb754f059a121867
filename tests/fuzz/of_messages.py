"""Message bodies and outfiles: an event, or a clear error; and what we send is what we read."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import zstandard

from ewms.pilot import events
from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.pulsarprotocol import NotPulsar, answer_in, batch_size
from ewms.secret import Secret
from tests.fuzz.source import Source
from tests.fuzz.target import Target

_LIMIT: Final = 1 << 20
_ORDINARY: Final = {"headers": {"ewms-event-id": "1", "ewms-failures": 2}, "data": {"run": 7, "files": ["a", "b"]}}
_BINARY: Final = {"headers": {"ewms-data-encoding": "base64"}, "data": "AAECAw=="}
_EXTENSIONS: Final = (".json", ".txt", "", ".JSON")


def bodies(data: bytes) -> None:
    """A body from the queue: an event or `BadMessage`; every way on from it is an error of ours or works."""
    source = Source(data)
    body = _body(source)
    message_id = source.choice((None, "", "id", source.text()))
    try:
        event = events.decode(body, message_id, limit=_LIMIT)
    except events.BadMessage:
        event = events.Event(event_id="x", id_source=events.IdSource.HASH, data=body)
    assert event.event_id
    assert event.attempt == event.failures + 1 >= 1
    assert event.parked in (True, False)
    _deeper(5, lambda: _onwards(event, source.choice(_EXTENSIONS)))


def _body(source: Source) -> bytes:
    match source.integer(0, 5):
        case 0:
            return source.rest()
        case 1:
            return source.damaged(zstandard.compress(events.encode(_ORDINARY["data"])))
        case 2:
            return zstandard.compress(source.rest())
        case 3:
            return zstandard.compress(b"\0" * (_LIMIT + source.integer(0, 1)) * source.integer(1, 40))
        case _:
            return zstandard.compress(source.json_bytes(source.changed(source.choice((_ORDINARY, _BINARY)))))


def _deeper(frames: int, work: Callable[[], None]) -> None:
    """Work further down the stack, as the pilot does: less of it is left for values that are deep."""
    if frames:
        _deeper(frames - 1, work)
    else:
        work()


def _onwards(event: events.Event, extension: str) -> None:
    with suppress(events.EventError):
        assert isinstance(events.infile_bytes(event.data, extension), bytes)
    try:
        failed = events.encode(event.data, events.failed_headers(event, error="no", parked=False))
    except events.EventError:
        return
    again = events.decode(failed, None, limit=10 * _LIMIT)
    assert (again.event_id, again.failures, again.parked) == (event.event_id, event.failures + 1, False)
    assert _same(again.data, event.data)
    output = events.output_headers(event, pilot_id="p", task="t", durations={"task": 1.5})
    assert events.decode(events.encode("out", output), None).headers[events.INPUT_EVENT_ID] == event.event_id


def outfiles(data: bytes) -> None:
    """An outfile: data that arrives, as the very same infile of the next task, or `EventError`."""
    source = Source(data)
    extension = source.choice(_EXTENSIONS)
    raw = source.json_bytes(source.json()) if source.chance() else source.rest()
    try:
        value = events.outfile_data(raw, extension)
        body = events.encode(value)
    except events.EventError:
        assert extension.lower() == ".json", "only JSON can be wrong"
        return
    arrived = events.decode(body, None).data
    assert _same(arrived, value)
    if isinstance(value, str | bytes) and extension.lower() != ".json":
        assert events.infile_bytes(arrived, extension) == raw


def _same(one: Any, other: Any) -> bool:
    """Equal, also where JSON's own extensions (NaN) are in it."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return type(one) is type(other) and bool(one == other)


def answers(data: bytes) -> None:
    """What a Pulsar broker says first, and where a message lies: read, or `NotPulsar`."""
    for read in (answer_in, batch_size):
        try:
            read(data)
        except NotPulsar:
            continue


def addresses(data: bytes) -> None:
    """A broker's address: read, or `BrokerRefused` without the password that may stand in it."""
    from ewms.pilot.brokers import amqpaddress, natsaddress, pulsaraddress

    source = Source(data)
    hidden = "hidden-password"
    scheme = source.choice(("", "amqp://", "amqps://", "nats://", "tls://", "pulsar://", "x://"))
    address = f"{scheme}{source.text(2)}:{hidden}@{source.text(3)}" if source.chance() else source.text()
    for module in (amqpaddress, natsaddress, pulsaraddress):
        try:
            parsed = module.parse_address(address, Secret(source.choice(("", "a-token-of-a-queue"))))
        except BrokerRefused as error:
            assert hidden not in f"{error}"
        else:
            assert "a-token-of-a-queue" not in f"{parsed!r}{parsed}"
    try:
        natsaddress.QueueNames(address)
    except BrokerRefused:
        return


def _bodies() -> Iterator[bytes]:
    for number in range(6):
        for following in range(0, 200, 40):
            yield bytes([number, *range(following, following + 40)])
    yield b"\0" + events.encode(_ORDINARY["data"], {"ewms-failures": 1})


def _outfiles() -> Iterator[bytes]:
    for number in range(len(_EXTENSIONS)):
        yield bytes([number, 0]) + b'{"a": [1, 2.5, "x\\ud800"], "b": null}'
        yield bytes([number, 0]) + "text \u00e9\r\n".encode()
        yield bytes([number, 1, 2, 3, 4])


TARGETS: Final = (
    Target("message-bodies", "bodies of messages", bodies, _bodies),
    Target("outfiles", "what tasks write", outfiles, _outfiles),
    Target("pulsar-frames", "Pulsar's own protocol", answers, lambda: [b"\0\0\0\x10\0\0\0\x0c\x08\x0e\x72\x08" * 2]),
    Target("broker-addresses", "addresses of brokers, and names of queues", addresses, _bodies),
)
