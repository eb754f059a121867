"""`[nats|tls://][token@|user:pass@]host[:port][,…]` → where to connect to and as whom; a queue's names there; pure.

The names are those of `oms-mqclient` 2.x, which is the client of the people whose events these are.
"""

from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from ewms.pilot.brokers.base import BrokerRefused
from ewms.secret import Secret

PATTERN: Final = "[nats|tls://][token@|user:pass@]host[:port][,host[:port]…]"
CONSUMER: Final = "psub"
"""The durable consumer that all pilots of a queue share."""
_NOT_IN_A_NAME: Final = frozenset(" \t\r\n.*>/\\")
_SCHEMES: Final = frozenset({"nats", "tls"})
_PORT: Final = 4222


@attrs.frozen
class NatsAddress:
    """Where the servers of one NATS cluster are, and who we are there."""

    servers: tuple[str, ...]
    """Each as `scheme://host:port`, without credentials."""
    tls: bool
    token: Secret
    user: str
    """"" where a token, or nothing, says who we are."""
    password: Secret

    def __str__(self) -> str:
        """The address without token, user and password, for people."""
        return ",".join(self.servers)


@attrs.frozen
class QueueNames:
    """What a queue is called on a NATS server."""

    queue: str

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be a name there."""
        if not self.queue or _NOT_IN_A_NAME & set(self.queue):
            raise BrokerRefused(f"queue {self.queue!r} cannot be on NATS: no spaces, dots, stars and slashes there")

    @property
    def stream(self) -> str:
        """Where its messages are."""
        return f"{self.queue}-stream"

    @property
    def subject(self) -> str:
        """What they are published to."""
        return f"{self.queue}-subject"

    @property
    def pull_subject(self) -> str:
        """Where messages are asked for."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{CONSUMER}"


def parse_address(address: str, auth_token: Secret) -> NatsAddress:
    """Read an address; `auth_token` comes before what the address says, and is the password of a user named there.

    Raises:
        BrokerRefused: it is no such address; the text never shows the address, which may hold a token.
    """
    try:
        parts = [_split(each.strip()) for each in address.split(",")]
        servers = tuple(_server(each) for each in parts)
    except ValueError as error:
        raise BrokerRefused(f"the broker address is not of the form {PATTERN}") from error
    first = parts[0]
    user, password = unquote(first.username or ""), unquote(first.password or "")
    if password:
        token, password = "", auth_token.reveal() or password
    else:
        token, user, password = (user, "", "") if not auth_token else (auth_token.reveal(), "", "")
    return NatsAddress(
        servers=servers,
        tls=any(each.scheme == "tls" for each in parts),
        token=Secret(token),
        user=user,
        password=Secret(password),
    )


def _split(address: str) -> SplitResult:
    parts = urlsplit(address if "://" in address else f"nats://{address}")
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("not a NATS address")
    return parts


def _server(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _PORT}"
