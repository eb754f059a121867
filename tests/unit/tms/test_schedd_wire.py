"""The JSON lines of the helper protocol."""

import pytest

from ewms.tms.condor.wire import (
    Failure,
    Reply,
    Request,
    WireError,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    misfit,
)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(7, value=[{"ClusterId": 18}]),
        Reply(7, value=None),
        Reply(7, value="a\nb \udcff é"),
        Reply(None, failure=Failure("bug", "not a request")),
        Reply(8, failure=Failure("refused", "no")),
    ],
)
def test_a_reply_is_one_line_and_comes_back(reply: Reply) -> None:
    line = encode_reply(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


def test_a_request_is_one_line_and_comes_back() -> None:
    request = Request(3, "query", {"constraint": 'A == "x\ny"', "projection": []})
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\n",
        b'{"id": 1}',
        b'{"id": "1", "ok": 1}',
        b'{"id": 1, "error": {"kind": "odd"}}',
        b'{"id": 1, "error": {"kind": ["odd"], "message": ""}}',
        b"[" * 100_000,
    ],
)
def test_other_lines_are_errors(line: bytes) -> None:
    with pytest.raises(WireError):
        decode_reply(line)
    with pytest.raises(WireError):
        decode_request(line)


def test_misfit_names_the_wrong_argument() -> None:
    def call(a: int, b: int = 0) -> None: ...

    assert misfit(call, {"a": 1}) is None
    assert "'b2'" in str(misfit(call, {"a": 1, "b2": 1}))
