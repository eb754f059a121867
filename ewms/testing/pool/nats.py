"""A NATS server with JetStream inside a namespace, on the loopback interface only."""

import json
import secrets
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.secret import Secret
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.server import BrokerServer
from ewms.testing.pool.steps import Progress

_CONFIG: Final = "/etc/nats-server.conf"
_STORE: Final = "/var/lib/nats"
_INFO: Final = b"INFO "


@attrs.define(kw_only=True)
class NatsServer(BrokerServer):
    """A NATS server; its streams survive a stop."""

    NAME = "NATS"
    USER = "nats"
    COMMAND = ("/usr/sbin/nats-server", "-c", _CONFIG)

    @property
    def address(self) -> str:
        """As `EWMS_PILOT_QUEUE_…_BROKER_ADDRESS` has it; the token is not in it."""
        return f"127.0.0.1:{self.port}"

    async def _greeting(self, stream: trio.SocketStream) -> str:
        said = b""
        async for chunk in stream:
            said += chunk
            if said.endswith(b"\r\n"):
                return str(json.loads(said.removeprefix(_INFO))["version"])
        return ""


async def start_nats(inside: Namespace, logs: Path, progress: Progress, extra_config: str = "") -> NatsServer:
    """Start a broker that asks for one token; its log goes to `logs/nats-server.log`."""
    (port,) = free_ports(1)
    token = Secret(secrets.token_hex(24))
    await _configure(inside, _config(port, token) + extra_config)
    server = NatsServer(port=port, token=token, inside=inside, output=logs / "nats-server.log", progress=progress)
    await server.start()
    return server


def _config(port: int, token: Secret) -> str:
    return (
        f"listen: 127.0.0.1:{port}\n"
        # One event may be large; the server's own default is 1 MB.
        "max_payload: 16MB\n"
        f'jetstream {{ store_dir: "{_STORE}" }}\n'
        f'authorization {{ token: "{token.reveal()}" }}\n'
    )


async def _configure(inside: Namespace, text: str) -> None:
    user = NatsServer.USER
    script = (
        f"install --directory --owner={user} --group={user} {_STORE}\n"
        f"install --mode=0600 --owner={user} --group={user} /dev/null {_CONFIG}\n"
        f"cat > {_CONFIG}\n"
    )
    # The token goes through the pipe: not onto a command line, and never into a file that others can read.
    await inside.run(["sh", "-e", "-c", script], user="root", stdin=text.encode())
