"""Message bodies and task files: nothing is altered on the way, and every bad input has its own clear error."""

import json
import sys
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot import events
from ewms.pilot.events import BadMessage, EventError, IdSource

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def body_of(message: Any) -> bytes:
    return zstandard.ZstdCompressor().compress(json.dumps(message).encode())


@given(data=json_values | st.binary())
def test_what_is_encoded_is_decoded_again(data: Any) -> None:
    event = events.decode(events.encode(data, {"k": "v"}), None)
    assert event.data == data
    assert type(event.data) is type(data)
    assert event.headers["k"] == "v"


@given(raw=st.binary())
def test_an_outfile_comes_back_as_the_very_same_infile(raw: bytes) -> None:
    data = events.outfile_data(raw, ".out")
    again = events.decode(events.encode(data), None).data
    assert events.infile_bytes(again, ".in") == raw


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="oms-mqclient's zstd package")
@pytest.mark.parametrize("data", ["", "text\r\n\0", "ümläut ✓ 🜁", 1, 1.5, None, True, [1, {"a": []}], {"k": "v"}])
def test_both_ways_with_the_fields_own_client(data: Any) -> None:
    interface = pytest.importorskip("mqclient.broker_client_interface")
    theirs = interface.Message.serialize(data, {"wipac": "x"})
    event = events.decode(theirs, None)
    assert (event.data, dict(event.headers)) == (data, {"wipac": "x"})
    message = interface.Message("1", events.encode(data, {"ours": 1}))
    assert (message.data, message.headers) == (data, {"ours": 1})


def test_other_clients_see_binary_data_as_base64_text() -> None:
    raw = zstandard.ZstdDecompressor().decompress(events.encode(b"\0\xff", {}))
    assert json.loads(raw) == {"headers": {"ewms-data-encoding": "base64"}, "data": "AP8="}


def test_a_stale_encoding_header_does_not_survive_text_data() -> None:
    assert events.decode(events.encode("AP8=", {events.DATA_ENCODING: "base64"}), None).data == "AP8="


@pytest.mark.parametrize("content_size", [True, False])
def test_frames_with_and_without_the_contents_size(content_size: bool) -> None:
    compressor = zstandard.ZstdCompressor().compressobj() if not content_size else None
    raw = b'{"headers": {}, "data": 7}'
    body = compressor.compress(raw) + compressor.flush() if compressor else zstandard.ZstdCompressor().compress(raw)
    assert events.decode(body, None).data == 7


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"plain", "not zstd"),
        (events.encode("x")[:-3], "not"),
        (body_of([1]), "not an object"),
        (body_of({"headers": {}}), "data"),
        (body_of({"headers": [1], "data": 1}), "headers"),
        (zstandard.ZstdCompressor().compress(b"\xff"), "not JSON"),
        (zstandard.ZstdCompressor().compress(b"[" * 100_000), "not JSON"),
        (body_of({"headers": {"ewms-data-encoding": "rot13"}, "data": "x"}), "only base64"),
        (body_of({"headers": {"ewms-data-encoding": "base64"}, "data": 3}), "a number"),
        (body_of({"headers": {"ewms-data-encoding": "base64"}, "data": "%"}), "base64"),
    ],
)
def test_bad_messages(body: bytes, text: str) -> None:
    with pytest.raises(BadMessage, match=text):
        events.decode(body, None)


def test_after_a_bad_message_comes_a_good_one() -> None:
    good = events.encode("x" * 200_000)
    for bad in (good[: len(good) // 2], b"no zstd at all"):
        with pytest.raises(BadMessage):
            events.decode(bad, None)
        assert events.decode(good, None).data == "x" * 200_000


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"0" * 50_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(BadMessage, match="larger than 1000 bytes"):
        events.decode(bomb, None, limit=1000)


@pytest.mark.parametrize("data", [b"\0" * 80, "\0" * 20])
def test_what_no_pilot_could_read_is_not_made(data: str | bytes) -> None:
    assert events.encode(data)
    with pytest.raises(EventError, match="bytes before it is compressed, more than 100"):
        events.encode(data, limit=100)


def test_missing_headers_are_no_headers() -> None:
    assert dict(events.decode(body_of({"data": 1}), None).headers) == {}
    assert dict(events.decode(body_of({"data": 1, "headers": None}), None).headers) == {}


def test_the_id_is_the_producers_or_the_brokers_or_a_hash() -> None:
    named = events.encode(1, {events.EVENT_ID: "mine"})
    plain = events.encode(1)
    assert (events.decode(named, "broker-1").event_id, events.decode(named, "b").id_source) == (
        "mine",
        IdSource.PRODUCER,
    )
    assert (events.decode(plain, "b").event_id, events.decode(plain, "b").id_source) == ("b", IdSource.BROKER)
    hashed = events.decode(plain, None)
    assert hashed.id_source is IdSource.HASH
    assert hashed.event_id == events.decode(events.encode(1), "").event_id
    assert hashed.event_id != events.decode(events.encode(2), None).event_id


def test_a_copy_of_a_failed_event_keeps_id_and_data_and_counts() -> None:
    event = events.decode(events.encode(b"\xff", {"k": 1}), None)
    assert (event.failures, event.attempt, event.parked) == (0, 1, False)
    headers = events.failed_headers(event, error="task failed (exit code 1): x", parked=False)
    again = events.decode(events.encode(event.data, headers), "another-broker-id")
    assert (again.event_id, again.id_source, again.data) == (event.event_id, IdSource.HASH, b"\xff")
    assert (again.failures, again.attempt, again.headers["k"]) == (1, 2, 1)
    assert events.failed_headers(again, error="y", parked=True)[events.FAILURES] == 2


@pytest.mark.parametrize("count", [-1, "3", None, 1.5, [], False])
def test_a_foreign_failure_count_is_no_count(count: Any) -> None:
    assert events.Event("i", IdSource.PRODUCER, 1, {events.FAILURES: count}).failures == 0


@pytest.mark.parametrize("source", [[], {}, None, 1, "nonsense"])
def test_a_foreign_id_source_means_the_producer(source: Any) -> None:
    body = events.encode(1, {events.EVENT_ID: "e-1", events.EVENT_ID_SOURCE: source})
    assert events.decode(body, None).id_source is IdSource.PRODUCER


def test_outputs_of_one_event_have_one_id_whichever_pilot_made_them() -> None:
    event = events.decode(events.encode("x"), "m-1")
    one = events.output_headers(event, pilot_id="p1", task="img:1 a", durations={"task": 1.23456})
    two = events.output_headers(event, pilot_id="p2", task="img:1 a")
    other_task = events.output_headers(event, pilot_id="p1", task="img:2 a")
    assert one[events.EVENT_ID] == two[events.EVENT_ID] != other_task[events.EVENT_ID]
    assert one[events.INPUT_EVENT_ID] == "m-1"
    assert one[events.INPUT_EVENT_ID_SOURCE] == "broker"
    assert one[events.DURATIONS] == {"task": 1.235}
    assert one[events.ATTEMPT] == 1
    assert events.decode(events.encode(1, one), None).event_id == one[events.EVENT_ID]


@pytest.mark.parametrize(
    ("data", "extension", "raw"),
    [
        ("a\r\nb\0", ".in", b"a\r\nb\0"),
        ("ü", ".json", "ü".encode()),
        (b"\xff\0", ".in", b"\xff\0"),
        ({"a": [1, None]}, ".json", b'{"a": [1, null]}'),
        (5, "JSON", b"5"),
        ("", ".in", b""),
    ],
)
def test_infile(data: Any, extension: str, raw: bytes) -> None:
    assert events.infile_bytes(data, extension) == raw


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "extension", "text"),
    [
        ({"a": 1}, ".in", r"an object.*needs a \.json infile.*'\.in'"),
        (None, ".in", "null"),
        (1, "", "a number"),
        ("\ud800", ".in", "UTF-8"),
        (nested(100_000), ".json", "cannot be written as JSON"),
    ],
)
def test_data_that_no_infile_can_hold(data: Any, extension: str, text: str) -> None:
    with pytest.raises(EventError, match=text):
        events.infile_bytes(data, extension)


@pytest.mark.parametrize(
    ("raw", "extension", "data"),
    [
        (b"", ".out", ""),
        (b"", ".json", ""),
        (b"a\r\nb\0\n", ".out", "a\r\nb\0\n"),
        (b"\xef\xbb\xbfx", ".txt", "\ufeffx"),
        (b"\xff", ".out", b"\xff"),
        (b'{"a": 1}', ".json", {"a": 1}),
        (b"null", "json", None),
    ],
)
def test_outfile(raw: bytes, extension: str, data: Any) -> None:
    assert events.outfile_data(raw, extension) == data


@pytest.mark.parametrize("raw", [b"{", b"\xff\xff", b"[" * 100_000])
def test_an_outfile_that_is_no_json(raw: bytes) -> None:
    with pytest.raises(EventError, match="outfile is not valid JSON"):
        events.outfile_data(raw, ".json")


def test_data_that_is_no_json_value() -> None:
    with pytest.raises(EventError, match="cannot be written as JSON"):
        events.encode({1, 2})
