"""Many pilots on a machine, a broker with many events: pilots whose containers do nothing, and a real RabbitMQ.

At the end the queues are looked at from outside: each event is still there, or has one output.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import noop_pilot
import pika
import trio

from ewms.pilot import events
from ewms.pilot.errors import ExitStatus
from ewms.testing.broker import RabbitServer, open_rabbitmq
from ewms.testing.held import held
from ewms.testing.pool.rabbitmq import USER
from tests.load.filling import fill
from tests.load.sampling import Sample, look

_PATIENCE_S = 120.0
_STARTING_S = 600.0
"""Fifty interpreters start at once."""


@attrs.frozen
class Load:
    """How many pilots, how many events, and how long at most (s)."""

    pilots: int
    events: int
    seconds: float


@attrs.frozen
class Outcome:
    """What a load left."""

    samples: list[Sample]
    connections: int
    """To the broker, of all pilots together."""
    outputs: int
    """Of as many events, each once."""
    left: int
    """Events that stayed in their queue."""


@contextmanager
def broker(directory: Path) -> Iterator[RabbitServer]:
    """A RabbitMQ server of our own."""
    with held(lambda: open_rabbitmq(directory, progress=lambda text: print(f"  … {text}", file=sys.stderr))) as server:
        yield server


def run(load: Load) -> Outcome:
    """Let them work until the queue is empty or the time is over, end them in order, and count every event.

    Raises:
        AssertionError: something was lost or done twice, a pilot failed, or the machine was too slow.
    """
    with tempfile.TemporaryDirectory(prefix="ewms-load-", dir="/tmp") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        server = stack.enter_context(broker(directory))
        channel = _channel(server)
        for queue in ("in", "out"):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        _fill(server, channel, load.events)
        own = _connections(server)
        pilots = [_start(directory / f"pilot-{number}", _settings(server)) for number in range(load.pilots)]
        try:
            samples = _watch(channel, pilots, load)
            connections = _connections(server) - own
        finally:
            for pilot in pilots:
                pilot.send_signal(signal.SIGTERM)
            codes = {pilot.wait(_PATIENCE_S) for pilot in pilots}
        assert codes == {ExitStatus.STOPPED}, f"exit statuses {sorted(codes)}"
        outputs = _once(channel, load.events)
    return Outcome(samples, connections, outputs, load.events - outputs)


def _connections(server: RabbitServer) -> int:
    return len(trio.run(server.ctl, "list_connections", "pid").split())


def _once(channel: Any, count: int) -> int:
    """How many events have an output; each has one, or is still in its queue."""
    _until(lambda: _length(channel, "in") + _length(channel, "out") >= count, _PATIENCE_S, "an event is lost")
    left, outputs = _length(channel, "in"), _length(channel, "out")
    found = set[Any]()
    for _method, _properties, body in islice(channel.consume("out", auto_ack=True), outputs):
        found.add(events.decode(body, None).data)
    channel.cancel()
    assert len(found) == outputs, f"{outputs - len(found)} of {outputs} outputs are second ones"
    assert left + outputs == count, f"{left} events and {outputs} outputs of {count} events"
    return outputs


def _channel(server: RabbitServer) -> Any:
    credentials = pika.PlainCredentials(USER, server.token.reveal())
    parameters = pika.ConnectionParameters("127.0.0.1", server.port, credentials=credentials, heartbeat=0)
    return pika.BlockingConnection(parameters).channel()


def _fill(server: RabbitServer, channel: Any, count: int) -> None:
    began = time.monotonic()
    fill(server.port, USER, server.token.reveal(), "in", map(events.encode, range(count)))
    _until(lambda: _length(channel, "in") >= count, _PATIENCE_S, "the broker does not take the events")
    print(f"  … {count:,} events are in the queue after {time.monotonic() - began:.0f} s", file=sys.stderr)


def _until(condition: Callable[[], bool], patience: float, problem: str) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.5)


def _length(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def _settings(server: RabbitServer) -> dict[str, str]:
    found = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "EWMS_PILOT_TASK_IMAGE": "none",
        "EWMS_PILOT_TASK_ARGS": "{{INFILE}} {{OUTFILE}}",
        "EWMS_PILOT_INFILE_EXT": ".json",
        "EWMS_PILOT_CL_LOG": "warning",
        "EWMS_PILOT_TIMEOUT_QUEUE_INCOMING": "1000000",
        "EWMS_PILOT_MIN_FREE_DISK": "0",
    }
    for direction, queue in (("INCOMING", "in"), ("OUTGOING", "out")):
        found |= {
            f"EWMS_PILOT_QUEUE_{direction}": queue,
            f"EWMS_PILOT_QUEUE_{direction}_AUTH_TOKEN": server.token.reveal(),
            f"EWMS_PILOT_QUEUE_{direction}_BROKER_ADDRESS": server.address,
        }
    return found


def _start(directory: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    directory.mkdir()
    with (directory / "said").open("wb") as said:
        command = [sys.executable, str(noop_pilot.__file__)]
        return subprocess.Popen(command, cwd=directory, env=dict(environment), stdout=said, stderr=said)


def _watch(channel: Any, pilots: "list[subprocess.Popen[bytes]]", load: Load) -> list[Sample]:
    _until(lambda: _length(channel, "out") >= load.pilots, _STARTING_S, "the pilots do not come up")
    began, samples = time.monotonic(), list[Sample]()
    while not samples or (samples[-1].at < load.seconds and samples[-1].done < load.events):
        time.sleep(1)
        assert all(pilot.poll() is None for pilot in pilots), "a pilot has ended"
        memory, files = look(pilot.pid for pilot in pilots)
        samples.append(Sample(time.monotonic() - began, _length(channel, "out"), memory, files))
    return samples
