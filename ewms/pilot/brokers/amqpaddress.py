"""`[amqp[s]://][user[:pass]@]host[:port][/vhost]` → where to connect to and as whom; pure."""

from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

from ewms.pilot.brokers.base import BrokerRefused
from ewms.secret import Secret

PATTERN: Final = "[amqp[s]://][user[:pass]@]host[:port][/vhost]"
_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@attrs.frozen
class AmqpAddress:
    """Where a RabbitMQ server is, and who we are there."""

    host: str
    port: int
    tls: bool
    vhost: str
    user: str
    password: Secret

    def __str__(self) -> str:
        """The address without user and password, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{'amqps' if self.tls else 'amqp'}://{host}:{self.port}{vhost}"


def parse_address(address: str, auth_token: Secret) -> AmqpAddress:
    """Read an address; a token takes the place of its password, with an empty user name if it has none.

    Without user, password and token the server's default is meant: `guest`, which it takes from its own host only.

    Raises:
        BrokerRefused: it is no such address, or names a user but no password; the text never shows the address, which
            may hold a password.
    """
    try:
        parts = urlsplit(address if "://" in address else f"amqp://{address}")
        port = parts.port
    except ValueError as error:
        raise BrokerRefused(f"the broker address is not of the form {PATTERN}") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
        raise BrokerRefused(f"the broker address is not of the form {PATTERN}")
    user, password = _credentials(unquote(parts.username or ""), unquote(parts.password or ""), auth_token)
    return AmqpAddress(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "amqps",
        vhost=unquote(parts.path.removeprefix("/")) or "/",
        user=user,
        password=password,
    )


def _credentials(user: str, password: str, auth_token: Secret) -> tuple[str, Secret]:
    if auth_token:
        return user, auth_token
    if password:
        return user, Secret(password)
    if user:
        raise BrokerRefused("the broker address names a user, but there is neither a password nor a token")
    return "guest", Secret("guest")
