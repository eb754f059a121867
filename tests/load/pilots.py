"""Many pilots on a machine, a broker with many events: pilots whose containers do nothing, and a real RabbitMQ."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import noop_pilot
import pika

from ewms.pilot import events
from ewms.testing.broker import RabbitServer, open_rabbitmq
from ewms.testing.held import held
from ewms.testing.pool.rabbitmq import USER
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


@contextmanager
def broker(directory: Path) -> Iterator[RabbitServer]:
    """A RabbitMQ server of our own."""
    with held(lambda: open_rabbitmq(directory, progress=lambda text: print(f"  … {text}", file=sys.stderr))) as server:
        yield server


def run(load: Load) -> list[Sample]:
    """Let them work until the queue is empty or the time is over; all pilots must have ended in order."""
    with tempfile.TemporaryDirectory(prefix="ewms-load-", dir="/tmp") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        server = stack.enter_context(broker(directory))
        channel = _channel(server)
        for queue in ("in", "out"):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        _fill(channel, load.events)
        pilots = [_start(directory / f"pilot-{number}", _settings(server)) for number in range(load.pilots)]
        samples = _watch(channel, pilots, load)
        for pilot in pilots:
            pilot.send_signal(signal.SIGTERM)
        codes = {pilot.wait(_PATIENCE_S) for pilot in pilots}
        lines = [(directory / f"pilot-{number}" / "said").read_text().splitlines() for number in range(load.pilots)]
        done = sum(json.loads(said[-1])["events"] for said in lines if said)
        print(f"  {load.pilots} pilots, {done} events, exit statuses {sorted(codes)}", file=sys.stderr)
        assert _length(channel, "out") + _length(channel, "in") >= load.events, "an event is lost"
    return samples


def _channel(server: RabbitServer) -> Any:
    credentials = pika.PlainCredentials(USER, server.token.reveal())
    parameters = pika.ConnectionParameters("127.0.0.1", server.port, credentials=credentials, heartbeat=0)
    return pika.BlockingConnection(parameters).channel()


def _fill(channel: Any, count: int) -> None:
    properties = pika.BasicProperties(delivery_mode=2)
    for number in range(count):
        channel.basic_publish("", "in", events.encode(number), properties)
    _until(lambda: _length(channel, "in") >= count, _PATIENCE_S, "the broker does not take the events")


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


if __name__ == "__main__":
    numbers = [float(each) for each in sys.argv[1:]]
    for sample in run(Load(int(numbers[0]), int(numbers[1]), numbers[2])):
        print(json.dumps(attrs.asdict(sample)))
