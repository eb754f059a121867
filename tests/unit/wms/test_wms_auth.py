"""Tokens: when a new one is fetched, how many at once, and what is kept secret for how long."""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from ewms.secret import Secret, redact
from ewms.wms.answers import Answer
from ewms.wms.auth import Auth, Tokens, read_token
from ewms.wms.errors import WMSUnauthorized, WMSUnavailable

AUTH = Auth("https://issuer/realm/", "us", Secret("a-client-secret"))


def jwt(**claims: Any) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


@attrs.define
class Issuer:
    """An OpenID issuer with hooks."""

    lifetime: float = 100
    takes: float = 1
    refuse: tuple[int, bytes] | None = None
    discovery: Answer = Answer(200, b'{"token_endpoint": "https://issuer/token"}')
    calls: list[tuple[str, Mapping[str, str] | None]] = attrs.field(factory=list)

    async def fetch(self, url: str, form: Mapping[str, str] | None) -> Answer:
        self.calls.append((url, form))
        if form is None:
            return self.discovery
        await trio.sleep(self.takes)
        if self.refuse:
            return Answer(*self.refuse)
        body = {"access_token": f"access-token-{self.granted}", "expires_in": self.lifetime}
        return Answer(200, json.dumps(body).encode())

    @property
    def granted(self) -> int:
        return sum(form is not None for _, form in self.calls)


async def test_discovery_once_and_the_form_of_the_contract(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    tokens = Tokens(AUTH, issuer.fetch)
    assert await tokens.get() == "access-token-1"
    await tokens.renew("access-token-1")
    form = {
        "grant_type": "client_credentials",
        "client_id": "us",
        "client_secret": "a-client-secret",
        "scope": "offline_access",
    }
    assert issuer.calls == [
        ("https://issuer/realm/.well-known/openid-configuration", None),
        ("https://issuer/token", form),
        ("https://issuer/token", form),
    ]


async def test_a_new_token_before_the_old_one_expires(autojump_clock: MockClock) -> None:
    tokens = Tokens(AUTH, Issuer(lifetime=100).fetch)
    await tokens.get()  # asked for at 0, there at 1, due at 90
    await trio.sleep(88.5)
    assert await tokens.get() == "access-token-1"
    await trio.sleep(1)
    assert await tokens.get() == "access-token-2"


async def test_many_callers_one_refresh(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    tokens = Tokens(AUTH, issuer.fetch)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(tokens.get)
    assert issuer.granted == 1
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(tokens.renew, "access-token-1")
    assert issuer.granted == 2


async def test_a_cancelled_refresh_leaves_the_way_free(autojump_clock: MockClock) -> None:
    issuer = Issuer(takes=10)
    tokens = Tokens(AUTH, issuer.fetch)
    with trio.move_on_after(1):
        await tokens.get()
    issuer.takes = 0
    assert await tokens.get() == "access-token-2"


async def test_old_tokens_are_hidden_for_one_more_round_and_then_forgotten(autojump_clock: MockClock) -> None:
    tokens = Tokens(AUTH, Issuer().fetch)
    for number in (1, 2, 3):
        await tokens.renew(f"access-token-{number - 1}")
    assert redact("access-token-3 access-token-2 access-token-1") == "*** *** access-token-1"
    tokens.close()
    assert redact("access-token-3 access-token-2") == "access-token-3 access-token-2"


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_refused_credentials_say_whose(autojump_clock: MockClock, status: int) -> None:
    issuer = Issuer(refuse=(status, b'{"error": "invalid_client"}'))
    with pytest.raises(WMSUnauthorized, match=r"client 'us' \(4.. *: invalid_client\)") as caught:
        await Tokens(AUTH, issuer.fetch).get()
    assert "a-client-secret" not in str(caught.value)


async def test_a_moved_token_endpoint_is_found_again(autojump_clock: MockClock) -> None:
    issuer = Issuer(refuse=(404, b""))
    tokens = Tokens(AUTH, issuer.fetch)
    with pytest.raises(WMSUnavailable):
        await tokens.get()
    issuer.refuse, issuer.discovery = None, Answer(200, b'{"token_endpoint": "https://new/token"}')
    await tokens.get()
    assert issuer.calls[-1][0] == "https://new/token"


@pytest.mark.parametrize(
    "discovery", [Answer(404, b"{}"), Answer(200, b"<html>"), Answer(200, b'{"token_endpoint": "file:///etc"}')]
)
async def test_what_is_no_discovery_document(discovery: Answer) -> None:
    with pytest.raises(WMSUnavailable, match="not an OpenID discovery document"):
        await Tokens(AUTH, Issuer(discovery=discovery).fetch).get()


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [
        ({"access_token": "opaque", "expires_in": 60}, 60),
        ({"access_token": jwt(iat=1000, exp=1300)}, 300),
        ({"access_token": jwt(iat=1000, exp=1300), "expires_in": 200}, 200),
        ({"access_token": jwt(exp=1300)}, math.inf),
        ({"access_token": "a.%%%.c"}, math.inf),
        ({"access_token": "opaque"}, math.inf),
        ({"access_token": "opaque", "expires_in": -5}, 0),
    ],
)
def test_lifetimes(answer: dict[str, Any], lifetime: float) -> None:
    token = read_token(answer)
    assert token is not None
    assert token.lifetime == lifetime
    assert answer["access_token"] not in repr(token)


@pytest.mark.parametrize("answer", [None, [], {}, {"access_token": ""}, {"access_token": 5}])
def test_no_token(answer: Any) -> None:
    assert read_token(answer) is None
