"""`[pulsar[+ssl]://]host[:port][,…]` → where to connect to and as whom; pure.

Topics are named as `oms-mqclient` 2.x names them: a queue's name is the topic's, in the namespace `public/default`
unless it says another one, and all readers share one subscription.
"""

from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs

from ewms.pilot.brokers.base import BrokerRefused
from ewms.secret import Secret

PATTERN: Final = "[pulsar[+ssl]://]host[:port][,host[:port]…]"
SUBSCRIPTION: Final = "i3-pulsar-sub"
"""Shared by all readers of a topic; what is published before there is one is gone."""
_PORTS: Final = {"pulsar": 6650, "pulsar+ssl": 6651}


@attrs.frozen
class PulsarAddress:
    """Where a Pulsar cluster can be entered, and who we are there."""

    servers: tuple[tuple[str, int], ...]
    """Host and port of each; any will do."""
    tls: bool
    token: Secret

    def __str__(self) -> str:
        """The address, without the token; the client library takes it just so."""
        return ("pulsar+ssl://" if self.tls else "pulsar://") + ",".join(
            f"{host}:{port}" for host, port in self.servers
        )


def parse_address(address: str, auth_token: Secret) -> PulsarAddress:
    """Read an address.

    Raises:
        BrokerRefused: it is no such address; the text never shows it, because somebody may have put a token there.
    """
    scheme, _, rest = address.strip().rpartition("://")
    try:
        servers = tuple(_server(urlsplit(f"//{each.strip()}"), _PORTS[scheme or "pulsar"]) for each in rest.split(","))
    except (KeyError, ValueError) as error:
        raise BrokerRefused(f"the broker address is not of the form {PATTERN}") from error
    return PulsarAddress(servers=servers, tls=scheme == "pulsar+ssl", token=auth_token)


def _server(parts: SplitResult, default_port: int) -> tuple[str, int]:
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("not a server's address")
    if ":" in parts.hostname:
        raise BrokerRefused("Pulsar's client library takes no IPv6 number for a broker's address, but a host's name")
    return parts.hostname, parts.port or default_port
