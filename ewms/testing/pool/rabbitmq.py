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
from ewms.testing.pool.steps import PoolUnavailable, Progress, last_line

USER: Final = "ewms"

_PROGRAM: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_CONFIG: Final = "/etc/rabbitmq/rabbitmq.conf"
_START_DEADLINE_S: Final = 90
_STOP_DEADLINE_S: Final = 30
_POLL_S: Final = 0.2
_TELL_EVERY_S: Final = 2
_CONNECTION_TIMEOUT_S: Final = 5

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
# In the Connection.Start frame, among the server's properties: a short string, `S`, and a long string.
_VERSION_PROPERTY: Final = re.compile(rb"\x07versionS\x00\x00\x00.([0-9.]+)", re.DOTALL)


@attrs.define
class RabbitServer:
    """A broker that can be stopped and started again; its queues survive that."""

    port: int
    token: Secret
    version: str
    _inside: Namespace
    _logs: Path
    _progress: Progress
    _environment: dict[str, str]
    _process: trio.Process | None = None

    @property
    def address(self) -> str:
        """As `EWMS_PILOT_QUEUE_…_BROKER_ADDRESS` has it; the password is the token."""
        return f"{USER}@127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            PoolUnavailable: it does not come up.
        """
        output = self._logs / "rabbitmq-server.log"
        with output.open("ab") as log:
            self._process = await self._inside.spawn([_PROGRAM], user="rabbitmq", env=self._environment, log=log)
        started = told_at = trio.current_time()
        self._progress("starting RabbitMQ")
        with trio.move_on_after(_START_DEADLINE_S):
            while self._process.poll() is None:
                if version := await _version_of_server_at(self.port):
                    self.version = version
                    self._progress(f"RabbitMQ is ready ({trio.current_time() - started:.1f} s)")
                    return
                if trio.current_time() - told_at >= _TELL_EVERY_S:
                    told_at = trio.current_time()
                    self._progress(f"starting RabbitMQ ({told_at - started:.0f} s)")
                await trio.sleep(_POLL_S)
        raise PoolUnavailable(f"RabbitMQ does not come up: {last_line(output)} (its logs: {self._logs})")

    async def stop(self) -> None:
        """Stop it in order; connections are closed, what it has in its queues is kept."""
        process = self._running()
        process.terminate()
        with trio.move_on_after(_STOP_DEADLINE_S):
            await process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it as a crash of its machine would."""
        process = self._running()
        process.kill()
        await process.wait()
        # The server dies of its parent's death, a moment later.
        with trio.move_on_after(_STOP_DEADLINE_S):
            while await _version_of_server_at(self.port):  # noqa: ASYNC110  a foreign process sets no event
                await trio.sleep(_POLL_S)

    def _running(self) -> trio.Process:
        assert self._process is not None, "it was never started"
        return self._process


async def start_rabbitmq(inside: Namespace, logs: Path, progress: Progress, extra_config: str = "") -> RabbitServer:
    """Start a broker with one user, whose password is a new token; its log goes to `logs/rabbitmq`."""
    port, distribution_port, epmd_port = free_ports(3)
    token = Secret(secrets.token_hex(24))
    rabbit_logs = logs / "rabbitmq"
    await _configure(inside, _config(port, token) + extra_config, rabbit_logs)
    server = RabbitServer(
        port=port,
        token=token,
        version="",
        inside=inside,
        logs=logs,
        progress=progress,
        environment={
            "RABBITMQ_NODENAME": "ewms@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_LOGS": str(rabbit_logs / "rabbitmq.log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/run/rabbitmq/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Its start script then becomes the server: signals reach it, and it is our direct child.
            "RUNNING_UNDER_SYSTEMD": "true",
        },
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


async def _version_of_server_at(port: int) -> str:
    """What the server says of itself when it is spoken to in AMQP; empty while nothing answers."""
    try:
        with trio.move_on_after(_CONNECTION_TIMEOUT_S):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_PROTOCOL_HEADER)
                said = b""
                while chunk := await stream.receive_some():
                    said += chunk
                    if found := _VERSION_PROPERTY.search(said):
                        return found.group(1).decode()
    except (OSError, trio.BrokenResourceError):
        pass
    return ""
