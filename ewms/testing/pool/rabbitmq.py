"""A RabbitMQ server inside a namespace, on the loopback interface only."""

import re
import secrets
import shlex
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.secret import Secret
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.server import BrokerServer
from ewms.testing.pool.steps import Progress

USER: Final = "ewms"

_CONFIG: Final = "/etc/rabbitmq/rabbitmq.conf"

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
# In the Connection.Start frame, among the server's properties: a short string, `S`, and a long string.
_VERSION_PROPERTY: Final = re.compile(rb"\x07versionS\x00\x00\x00.([0-9.]+)", re.DOTALL)


@attrs.define(kw_only=True)
class RabbitServer(BrokerServer):
    """A RabbitMQ server; its queues survive a stop."""

    NAME = "RabbitMQ"
    USER = "rabbitmq"
    COMMAND = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)

    @property
    def address(self) -> str:
        """As `EWMS_PILOT_QUEUE_…_BROKER_ADDRESS` has it; the password is the token."""
        return f"{USER}@127.0.0.1:{self.port}"

    async def ctl(self, *words: str) -> str:
        """Run `rabbitmqctl`; what it says.

        Raises:
            CommandFailed: it did not do it.
        """
        done = await self._inside.run(["rabbitmqctl", "--quiet", *words], user=self.USER, env=self._environment)
        return done.stdout.decode()

    async def _greeting(self, stream: trio.SocketStream) -> str:
        await stream.send_all(_PROTOCOL_HEADER)
        said = b""
        async for chunk in stream:
            said += chunk
            if found := _VERSION_PROPERTY.search(said):
                return found.group(1).decode()
        return ""


async def start_rabbitmq(inside: Namespace, logs: Path, progress: Progress, extra_config: str = "") -> RabbitServer:
    """Start a broker with one user, whose password is a new token; its log goes to `logs/rabbitmq`."""
    port, distribution_port, epmd_port = free_ports(3)
    token = Secret(secrets.token_hex(24))
    rabbit_logs = logs / "rabbitmq"
    await _configure(inside, _config(port, token) + extra_config, rabbit_logs)
    environment = {
        "RABBITMQ_NODENAME": "ewms@localhost",
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_LOGS": str(rabbit_logs / "rabbitmq.log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": "/run/rabbitmq/enabled_plugins",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # Its start script then becomes the server: signals reach it, and it is our direct child.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    server = RabbitServer(
        port=port,
        token=token,
        inside=inside,
        output=logs / "rabbitmq-server.log",
        progress=progress,
        environment=environment,
    )
    await server.start()
    return server


def _config(port: int, token: Secret) -> str:
    return (
        f"listeners.tcp.default = 127.0.0.1:{port}\n"
        f"default_user = {USER}\n"
        f"default_pass = {token.reveal()}\n"
        "vm_memory_high_watermark.absolute = 1GB\n"
        "disk_free_limit.absolute = 50MB\n"
    )


async def _configure(inside: Namespace, text: str, logs: Path) -> None:
    script = (
        f"install --directory --owner=rabbitmq --group=rabbitmq /run/rabbitmq {shlex.quote(str(logs))}\n"
        f"install --mode=0600 --owner=rabbitmq --group=rabbitmq /dev/null {_CONFIG}\n"
        f"cat > {_CONFIG}\n"
    )
    # The token goes through the pipe: not onto a command line, and never into a file that others can read.
    await inside.run(["sh", "-e", "-c", script], user="root", stdin=text.encode())
