"""The user's side of the queues: put events in, take results out, whatever broker serves them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from ewms.pilot import events
from ewms.pilot.brokers import open_broker
from ewms.secret import Secret
from ewms.testing import localqueue


class UserQueues(Protocol):
    """What a user's program does with queues."""

    @property
    def client(self) -> str:
        """What speaks to the broker, for people."""

    async def put(self, queue: str, values: Iterable[Any]) -> None:
        """Send each value as one event."""

    async def get(self, queue: str, count: int, on_value: Callable[[Any], None]) -> None:
        """Take `count` values, and give each to `on_value` as it comes."""


@attrs.frozen
class MqclientQueues:
    """RabbitMQ, spoken to by `oms-mqclient` in a process of its own."""

    address: str
    token: Secret
    client: str = "oms-mqclient"

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "ewms.testing.mqclient_program", *args]

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "QUEUE_TOKEN": self.token.reveal()}

    async def put(self, queue: str, values: Iterable[Any]) -> None:
        """Send each value as one event."""
        lines = "".join(json.dumps(value) + "\n" for value in values)
        await trio.run_process(
            self._command("put", queue, self.address), stdin=lines.encode(), env=self._environment, capture_stderr=True
        )

    async def get(self, queue: str, count: int, on_value: Callable[[Any], None]) -> None:
        """Take `count` values, and give each to `on_value` as it comes."""
        process = await trio.lowlevel.open_process(
            self._command("get", queue, self.address, str(count)), stdout=subprocess.PIPE, env=self._environment
        )
        assert process.stdout is not None
        try:
            rest = b""
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    on_value(json.loads(line))
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
            await process.stdout.aclose()


@attrs.frozen
class LocalQueues:
    """The embedded broker, spoken to by our own adapter."""

    address: str
    client: str = "our own client"

    async def put(self, queue: str, values: Iterable[Any]) -> None:
        """Send each value as one event."""
        await localqueue.put(Path(self.address), queue, values)

    async def get(self, queue: str, count: int, on_value: Callable[[Any], None]) -> None:
        """Take `count` values, and give each to `on_value` as it comes."""
        async with (
            open_broker("local", self.address, Secret("")) as broker,
            broker.source(queue, prefetch=20) as source,
        ):
            for _ in range(count):
                delivery = await source.receive()
                await source.ack(delivery)
                on_value(events.decode(delivery.body, delivery.message_id).data)
