"""What the WMS answers: a typed result or an error of ours, whatever JSON it is."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.wms import raw
from ewms.wms.answers import Answer, decode, judge, retry_after
from ewms.wms.converter import read
from ewms.wms.errors import WMSError, WMSMalformed
from ewms.wms.models import MQProfile, StartOrder, Taskforce
from tests.fuzz.source import Source
from tests.fuzz.target import Target

_ORDER: Final = Path(__file__).parents[1] / "data" / "wms" / "start-order.json"
_TOKEN: Final = "TOKEN-FOR-TESTS"
_STATUSES: Final = (200, 207, 204, 301, 400, 401, 403, 404, 408, 413, 429, 500, 503, 999)
_DATES: Final = ("Sun, 22 Nov 2026 07:00:00 GMT", "Sun, 22 Nov 2026 07:00:00 -0000", "Sun, 99 Nov 99999 07:00:00 +9999")


def order() -> Any:
    """A captured order."""
    return json.loads(_ORDER.read_text())


def values(data: bytes) -> None:
    """A JSON value where a model is expected: the model with the types that it says, or `WMSMalformed`."""
    source = Source(data)
    value = source.json() if source.chance(6) else order()
    for _ in range(source.integer(1, 3)):
        value = source.changed(value)
    part = value["taskforce"] if isinstance(value, dict) and "taskforce" in value else value
    for cls, given in ((StartOrder, value), (Taskforce, part), (MQProfile, value)):
        try:
            found = read(cls, given, "thing")
        except WMSMalformed as error:
            assert error.problems
            assert _TOKEN not in str(error)
        else:
            _is_typed(found)
    _look(part, source)


def _is_typed(found: Any) -> None:
    for field in attrs.fields(type(found)):
        value = getattr(found, field.name)
        if attrs.has(type(value)):
            _is_typed(value)
        elif field.type in (str, int, bool, float):
            assert type(value) is field.type, field.name


def _look(value: Any, source: Source) -> None:
    assert raw.count_failures(value, "condor-submit") >= 0
    assert raw.is_completed(value, 7) in (True, False)
    uuids = _or_malformed(lambda: raw.failed_uuids(value if source.chance() else {"results": value}))
    assert all(isinstance(each, str) for each in uuids or ())
    page = _or_malformed(lambda: raw.read_page(value if source.chance() else {"taskforces": value}))
    assert page is None or all(isinstance(each, dict) for each in page[0])


def _or_malformed(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except WMSMalformed:
        return None


def http(data: bytes) -> None:
    """An HTTP answer: a JSON value or a `WMSError`, and a wait that can be waited."""
    source = Source(data)
    wait = source.choice(_DATES) if source.chance() else source.text()
    status = source.choice(_STATUSES)
    body = source.json_bytes(source.json())
    answer = Answer(status, body, {"retry-after": wait})
    decode(answer)
    seconds = retry_after(answer, datetime.now(UTC))
    assert seconds is None or seconds >= 0
    try:
        assert judge("a call", answer) is not None
    except WMSError:
        return


def _choices() -> Iterator[bytes]:
    for number in range(0, 250, 10):
        yield bytes([0, 0, *(byte % 256 for byte in range(number, number + 50))])


TARGETS: Final = (
    Target("wms-values", "JSON values that the WMS sends", values, _choices),
    Target("wms-answers", "HTTP answers of the WMS, or of a proxy", http, _choices),
)
