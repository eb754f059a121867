"""What an HTTP answer of the WMS means: a JSON value, or one of our errors. Pure; `client.py` does the talking."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import attrs

from ewms.wms.errors import WMSNotFound, WMSRefused, WMSUnauthorized, WMSUnavailable

_TRANSIENT: Final = frozenset({408, 429})
_GATEWAYS_OWN: Final = frozenset({502, 504})
"""A gateway has given the WMS up, which may be at it still."""


@attrs.frozen
class Answer:
    """One HTTP answer, whatever library it came through."""

    status: int
    body: bytes = attrs.field(default=b"", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """With lower-case names."""


def judge(call: str, answer: Answer) -> Any:
    """The JSON value of a good answer; `call` names the call in errors.

    A 4xx counts as the WMS's own word only in the WMS's own form (`{code, error}`). A proxy in front of a service that
    is being replaced says 404 or 403 too, and taking that for "no such taskforce" would remove healthy clusters. A 413
    counts whoever says it: the body is too large on the way, whatever stands behind. A 403 is about who we are, never
    about what is in the call: a role that is missing comes back, as a token's validity does.

    Raises:
        WMSUnauthorized: 401, or 403 from the WMS.
        WMSUnavailable: 5xx, 408, 429, a redirect, or an answer that is not the WMS's.
        WMSNotFound: 404, from the WMS.
        WMSRefused: any other 4xx, from the WMS.
    """
    status = answer.status
    if status == 401 or (status == 403 and _is_own_error(answer)):
        raise WMSUnauthorized(f"{call}: the WMS does not accept our token ({status}: {_error_text(answer)})")
    if status >= 500 or status in _TRANSIENT:
        reason = f"{call}: the WMS answers {status}: {_error_text(answer)}"
        wait = retry_after(answer, datetime.now(UTC))
        raise WMSUnavailable(reason, retry_after=wait, is_open=status in _GATEWAYS_OWN)
    if status == 404 and _is_own_error(answer):
        raise WMSNotFound(f"{call}: {_error_text(answer)}")
    if status == 413 or (400 <= status < 500 and _is_own_error(answer)):
        raise WMSRefused(call, status, _error_text(answer))
    value = decode(answer)
    if not 200 <= status < 300 or value is None:
        raise WMSUnavailable(f"{call}: answered {status} by something that is not the WMS; is its address right?")
    return value


def decode(answer: Answer) -> Any:
    """The JSON value of the body; None if it is not JSON, or nested too deep to be anything of the WMS's."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def retry_after(answer: Answer, now: datetime) -> float | None:
    """The `Retry-After` header in s from `now` (it may hold a number or a date); None without a usable one."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _is_own_error(answer: Answer) -> bool:
    value = decode(answer)
    return isinstance(value, dict) and "error" in value


def _error_text(answer: Answer) -> str:
    value = decode(answer)
    if isinstance(value, dict) and isinstance(text := value.get("error"), str) and text:
        return text
    return "no reason given"
