"""What a queue's token says of its own end."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.brokers.base import QueueAddress
from ewms.pilot.tokens import token_expiry, warnings
from ewms.secret import Secret

NOW = 1_800_000_000.0


def jwt(claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("token", "ends"),
    [
        (jwt({"exp": 1_800_000_000}), 1_800_000_000.0),
        (jwt({"exp": 1.5, "sub": "ümläut ✓ " * 9}), 1.5),
        (jwt({"sub": "x"}), None),
        (jwt({"exp": "soon"}), None),
        (jwt({"exp": True}), None),
        (jwt({"exp": float("inf")}), None),
        (jwt({"exp": 10**400}), None),
        (jwt(["exp"]), None),
        ("", None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.€.c", None),
    ],
)
def test_the_end_is_what_a_jwt_says(token: str, ends: float | None) -> None:
    assert token_expiry(Secret(token)) == ends


@given(st.text(max_size=60))
def test_any_other_token_is_just_a_token(text: str) -> None:
    assert token_expiry(Secret(text)) is None


def queue(name: str, token: str) -> QueueAddress:
    return QueueAddress(name, "rabbitmq", "host", Secret(token))


def test_a_token_that_ends_before_the_worker_does_is_told_without_showing_it() -> None:
    token = jwt({"exp": NOW + 600})
    (line,) = warnings([queue("in", token), queue("out", "opaque")], NOW + 3600, NOW)
    assert "queue 'in' ends before this worker's time does (2027-01-15T08:10:00Z, +10 min)" in line
    assert token not in line


@pytest.mark.parametrize(("lease", "lines"), [(None, 0), (NOW - 9, 0), (NOW + 599, 0), (NOW + 600, 0), (NOW + 601, 1)])
def test_against_what_the_worker_has(lease: float | None, lines: int) -> None:
    assert len(warnings([queue("in", jwt({"exp": NOW + 600}))], lease, NOW)) == lines


def test_a_token_that_has_ended() -> None:
    (line,) = warnings([queue("in", jwt({"exp": NOW - 90}))], None, NOW)
    assert "queue 'in' ended (" in line
    assert "-2 min" in line


def test_an_end_beyond_all_calendars() -> None:
    (line,) = warnings([queue("in", jwt({"exp": -1e300}))], None, NOW)
    assert "-1e+300" in line
