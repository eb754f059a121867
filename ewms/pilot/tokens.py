"""When a queue's token ends, as far as the token itself says; pure. Nothing is verified: that is the broker's part."""

import base64
import binascii
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime

from ewms.pilot.brokers.base import QueueAddress
from ewms.secret import Secret

_PARTS_OF_A_JWT = 3


def token_expiry(token: Secret) -> float | None:
    """When a token ends (epoch s): the `exp` of a JWT; None for any other token, and for a JWT without an end."""
    parts = token.reveal().split(".")
    if len(parts) != _PARTS_OF_A_JWT:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return None
    try:
        moment = float(ends)
    except OverflowError:
        return None  # JSON's whole numbers have no end
    return moment if math.isfinite(moment) else None


def warnings(queues: Iterable[QueueAddress], lease_ends: float | None, now: float) -> list[str]:
    """One line for each queue whose token has ended, or ends before the worker does (epoch s; None: no limit)."""
    found = []
    for address in queues:
        ends = token_expiry(address.auth_token)
        if ends is None or ends >= max(lease_ends or now, now):
            continue
        words = "ended" if ends <= now else "ends before this worker's time does"
        found.append(
            f"the token of queue {address.queue!r} {words} ({_when(ends)}, {(ends - now) / 60:+.0f} min): "
            "the broker may then refuse us, and events in work go to others"
        )
    return found


def _when(moment: float) -> str:
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{moment:g}"
