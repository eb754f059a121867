"""What an HTTP answer means."""

import json
from datetime import UTC, datetime

import pytest

from ewms.wms.answers import Answer, judge, retry_after
from ewms.wms.errors import WMSError, WMSNotFound, WMSRefused, WMSUnauthorized, WMSUnavailable

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def error_body(text: str) -> bytes:
    return json.dumps({"code": 0, "error": text}).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(400, error_body("x")), WMSRefused),
        (Answer(401, error_body("x")), WMSUnauthorized),
        (Answer(403, error_body("x")), WMSUnauthorized),
        (Answer(403, b"<html>"), WMSUnavailable),
        (Answer(413, b"<html>"), WMSRefused),
        (Answer(404, error_body("x")), WMSNotFound),
        (Answer(404, b"default backend - 404"), WMSUnavailable),
        (Answer(404, b"{}"), WMSUnavailable),
        (Answer(408), WMSUnavailable),
        (Answer(429), WMSUnavailable),
        (Answer(500, error_body("x")), WMSUnavailable),
        (Answer(503, b"<html>"), WMSUnavailable),
        (Answer(302), WMSUnavailable),
        (Answer(200, b"<html>a login page</html>"), WMSUnavailable),
        (Answer(200, b'{"cut'), WMSUnavailable),
        (Answer(200, b"[" * 100_000), WMSUnavailable),
        (Answer(404, b'{"error":' * 100_000), WMSUnavailable),
    ],
)
def test_bad_answers(answer: Answer, kind: type[WMSError]) -> None:
    with pytest.raises(WMSError) as caught:
        judge("GET /x", answer)
    assert type(caught.value) is kind


@pytest.mark.parametrize(("status", "is_open"), [(500, False), (502, True), (503, False), (504, True), (429, False)])
def test_behind_a_gateway_that_gave_up_the_wms_may_act_yet(status: int, is_open: bool) -> None:
    with pytest.raises(WMSUnavailable) as caught:
        judge("POST /x", Answer(status, b"<html>"))
    assert caught.value.is_open is is_open


def test_good_answers() -> None:
    assert judge("GET /x", Answer(200, b"{}")) == {}
    assert judge("GET /x", Answer(207, b'{"results": []}')) == {"results": []}


def test_a_refusal_keeps_the_words_and_the_status() -> None:
    with pytest.raises(WMSRefused, match="n_workers is missing") as caught:
        judge("POST /x", Answer(400, error_body("n_workers is missing")))
    assert (caught.value.status, caught.value.error) == (400, "n_workers is missing")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sat, 21 Nov 2026 12:01:30 GMT", 90.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:01:30", None),
        ("Sat, 21 Nov 99999999999999999999 12:01:30 GMT", None),
        ("-3", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(Answer(429, headers={"retry-after": text}), NOW) == seconds
