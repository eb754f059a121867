"""OAuth2 client credentials: where tokens come from, and when a new one is due.

No HTTP library here: the client passes in `fetch`, one request with its own deadline.
"""

import base64
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
import structlog
import trio

from ewms.secret import Secret, forget, register
from ewms.wms.answers import Answer, decode
from ewms.wms.errors import WMSUnauthorized, WMSUnavailable

log = structlog.stdlib.get_logger(__name__)

Fetch = Callable[[str, Mapping[str, str] | None], Awaitable[Answer]]
"""(url, form) → answer: a POST of the form, or a GET without one; raises `WMSUnavailable` when nobody answers."""

_LONGEST_MARGIN: Final = 30.0
_DISCOVERY: Final = "/.well-known/openid-configuration"


@attrs.frozen
class Auth:
    """Who we are at which OpenID issuer (`EWMS_TOKEN_URL`, `EWMS_CLIENT_ID`, `EWMS_CLIENT_SECRET`)."""

    token_url: str
    """The issuer; its discovery document names the token endpoint."""
    client_id: str
    client_secret: Secret


@attrs.frozen
class Token:
    """An access token and how long it is good for, in s from the moment it was asked for (inf: nobody said)."""

    text: str = attrs.field(repr=False)
    lifetime: float

    @property
    def margin(self) -> float:
        """How long before its end a new one is fetched, in s."""
        return min(_LONGEST_MARGIN, self.lifetime / 10)


def read_token(value: Any) -> Token | None:
    """What a token endpoint's answer says; None if there is no token in it."""
    if not isinstance(value, dict) or not isinstance(text := value.get("access_token"), str) or not text:
        return None
    for lifetime in (value.get("expires_in"), _lifetime_of_jwt(text)):
        if isinstance(lifetime, int | float) and math.isfinite(lifetime):
            return Token(text, max(0.0, float(lifetime)))
    return Token(text, math.inf)


def _lifetime_of_jwt(text: str) -> float | None:
    # exp − iat needs no agreement between the issuer's clock and ours.
    try:
        part = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["exp"] - claims["iat"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


class Tokens:
    """Hands out a token that is good for now; one refresh at a time, and old tokens are forgotten."""

    def __init__(self, auth: Auth, fetch: Fetch) -> None:
        self._auth = auth
        self._fetch = fetch
        self._refreshing = trio.Lock()
        self._endpoint: str | None = None
        self._text: str | None = None
        self._previous: str | None = None
        self._due = -math.inf

    async def get(self) -> str:
        """A token for one call.

        Raises:
            WMSUnavailable: the issuer is out of reach or answers nonsense.
            WMSUnauthorized: it refuses our credentials.
        """
        async with self._refreshing:
            if self._text is None or trio.current_time() >= self._due:
                return await self._refresh()
            return self._text

    async def renew(self, refused: str) -> str:
        """A token other than the one that was `refused` (another task may have fetched it already)."""
        async with self._refreshing:
            if self._text is None or self._text == refused:
                return await self._refresh()
            return self._text

    def close(self) -> None:
        """Take our tokens off the list of what logs must hide: they will not be seen again."""
        for text in (self._text, self._previous):
            if text is not None:
                forget(text)

    async def _refresh(self) -> str:
        asked = trio.current_time()
        token = await self._fetch_token()
        self._keep(token.text)
        self._due = asked + token.lifetime - token.margin
        log.debug("token refreshed", lifetime_s=token.lifetime)
        return token.text

    def _keep(self, text: str) -> None:
        # The one before is still in flight in other calls, so that it stays hidden for one more round.
        if text == self._text:
            return
        if self._previous is not None:
            forget(self._previous)
        self._previous, self._text = self._text, text
        register(text)

    async def _fetch_token(self) -> Token:
        if self._endpoint is None:
            self._endpoint = await self._discover()
        form = {
            "grant_type": "client_credentials",
            "client_id": self._auth.client_id,
            "client_secret": self._auth.client_secret.reveal(),
            "scope": "offline_access",
        }
        try:
            answer = await self._fetch(self._endpoint, form)
            return self._judge(answer)
        except WMSUnavailable:
            self._endpoint = None  # it may have moved
            raise

    def _judge(self, answer: Answer) -> Token:
        value = decode(answer)
        if answer.status in (400, 401, 403):
            kind = value.get("error") if isinstance(value, dict) else None
            raise WMSUnauthorized(
                f"the issuer {self._auth.token_url} refuses the credentials of client {self._auth.client_id!r} "
                f"({answer.status}: {kind if isinstance(kind, str) else 'no reason given'})"
            )
        token = read_token(value) if 200 <= answer.status < 300 else None
        if token is None:
            raise WMSUnavailable(f"the token endpoint {self._endpoint} gave no token (status {answer.status})")
        return token

    async def _discover(self) -> str:
        url = self._auth.token_url.rstrip("/") + _DISCOVERY
        answer = await self._fetch(url, None)
        value = decode(answer)
        endpoint = value.get("token_endpoint") if isinstance(value, dict) and answer.status == 200 else None
        if not isinstance(endpoint, str) or not endpoint.startswith(("http://", "https://")):
            raise WMSUnavailable(f"{url} is not an OpenID discovery document (status {answer.status})")
        return endpoint
