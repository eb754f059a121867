"""The token endpoint's part: short-lived JWTs that only this stand-in accepts."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from ewms.secret import Secret
from ewms.testing.wms.problems import Problem

_USER_TOKEN_LIFETIME_S = 24 * 3600


class TokenIssuer:
    """Makes tokens for one client, and judges them."""

    def __init__(
        self, client_id: str, client_secret: Secret, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.issued = 0
        """How many tokens the endpoint handed out."""
        self._lifetime = lifetime
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def grant(self, form: Mapping[str, str]) -> dict[str, Any]:
        """What the token endpoint answers to this form.

        Raises:
            Problem: the OAuth2 error, with its code as the text.
        """
        if form.get("grant_type") != "client_credentials":
            raise Problem(400, "unsupported_grant_type")
        expected = (self.client_id, self.client_secret.reveal())
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, expected, strict=True)):
            raise Problem(401, "invalid_client")
        self.issued += 1
        return {
            "access_token": self.make(self._lifetime),
            "token_type": "Bearer",
            "expires_in": self._lifetime,
            "scope": form.get("scope", ""),
        }

    def make(self, lifetime: float = _USER_TOKEN_LIFETIME_S) -> str:
        """A token that is good for so many s (a day by default: a user's)."""
        now = self._clock()
        claims = {"iat": now, "exp": now + lifetime, "sub": self.client_id, "jti": secrets.token_hex(8)}
        signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}"

    def revoke_all(self) -> None:
        """From now on no token that was made before is accepted."""
        self._key = secrets.token_bytes(32)

    def check(self, authorization: str) -> None:
        """Judge an `Authorization` header; raises `Problem` (401)."""
        scheme, _, token = authorization.partition(" ")
        signed, _, signature = token.rpartition(".")
        if scheme != "Bearer" or not hmac.compare_digest(self._sign(signed).encode(), signature.encode()):
            raise Problem(401, "a valid token is needed: Authorization: Bearer …")
        claims = json.loads(_decode(signed.partition(".")[2]))
        if self._clock() >= claims["exp"]:
            raise Problem(401, "the token has expired")

    def _sign(self, text: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self._key, text.encode(), hashlib.sha256)).decode().rstrip("=")


def _encode(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
