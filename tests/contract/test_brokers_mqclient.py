"""Both ways with `oms-mqclient`, the field's client, which was not written by us: users put and read events with it."""

import base64
import json
import subprocess
import sys
from typing import Any

import attrs
import pytest
import trio

from ewms.pilot import events
from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.secret import Secret

# Their process reads JSON lines, and prints for each value received its JSON and its headers. Pulsar's library writes
# to stdout by itself, into the middle of a line too: so what is told has a stream of its own.
THEIRS = """
import asyncio, json, os, sys
from mqclient.queue import Queue

told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
broker_type, action, address, name, count = sys.argv[1:]
queue = Queue(broker_type, address=address, name=name, auth_token=sys.stdin.readline().strip(), timeout=15)

async def put():
    async with queue.open_pub() as publisher:
        for line in sys.stdin:
            await publisher.send(json.loads(line))

async def get():
    received = 0
    async with queue.open_sub_manual_acking() as messages:
        async for message in messages.iter_messages():
            print(json.dumps({"data": message.data, "headers": message.headers}), file=told)
            await messages.ack(message)
            received += 1
            if received == int(count):
                break

asyncio.run(put() if action == "put" else get())
"""

VALUES: list[Any] = [
    "",
    "text\r\n\0",
    "ümläut ✓ 🜁",
    0,
    1.5,
    None,
    True,
    [],
    {"a": [1, {"b": None}]},
    "x" * 5_000_000,
]


@attrs.frozen
class Theirs:
    broker_type: str
    address: str
    """As they take it."""
    token: Secret
    queue: str

    async def run(self, action: str, lines: str = "", count: int = 0) -> str:
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, "-c", THEIRS, self.broker_type, action, self.address, self.queue, str(count)],
                stdin=f"{self.token.reveal()}\n{lines}".encode(),
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
            )
        return done.stdout.decode()


def rabbitmq(access: Any) -> tuple[str, Secret]:
    where = parse_address(access.address, access.token)
    return f"{where.user}@{where.host}:{where.port}", where.password


def nats(access: Any) -> tuple[str, Secret]:
    # Their client of NATS has no other place for a token.
    return f"nats://{access.token.reveal()}@{access.address}", Secret("")


def pulsar(access: Any) -> tuple[str, Secret]:
    return access.address, access.token


PARAMS = [
    pytest.param(("rabbitmq", "rabbit_access", rabbitmq), id="rabbitmq", marks=pytest.mark.broker),
    pytest.param(("nats", "nats_access", nats), id="nats", marks=pytest.mark.broker),
    # A stand-in for the broker; their client is the true one.
    pytest.param(("pulsar", "pulsar_standin", pulsar), id="pulsar"),
]


@pytest.fixture(params=PARAMS)
def theirs(request: pytest.FixtureRequest) -> Theirs:
    pytest.importorskip("mqclient")
    broker_type, access, address = request.param
    queue = f"test-{abs(hash(request.node.name))}"
    where, token = address(request.getfixturevalue(access))
    return Theirs(broker_type, where, token, queue)


async def test_what_they_put_we_read(theirs: Theirs) -> None:
    await theirs.run("put", "".join(json.dumps(value) + "\n" for value in VALUES))
    async with (
        open_broker(theirs.broker_type, theirs.address, theirs.token) as broker,
        broker.source(theirs.queue, prefetch=3) as source,
    ):
        for value in VALUES:
            with trio.fail_after(30):
                delivery = await source.receive()
            event = events.decode(delivery.body, delivery.message_id)
            assert event.data == value
            # NATS and Pulsar number all messages of a queue.
            numbered = theirs.broker_type != "rabbitmq"
            assert event.id_source is (events.IdSource.BROKER if numbered else events.IdSource.HASH)
            assert await source.ack(delivery)


async def test_what_we_put_they_read(theirs: Theirs) -> None:
    binary = bytes(range(256))
    async with (
        open_broker(theirs.broker_type, theirs.address, theirs.token) as broker,
        broker.sink(theirs.queue) as sink,
    ):
        for number, value in enumerate([*VALUES, binary]):
            await sink.publish(events.encode(value, {"ewms-pilot": "p"}), message_id=str(number))
    lines = (await theirs.run("get", count=len(VALUES) + 1)).splitlines()
    received = [json.loads(line) for line in lines]
    assert [message["data"] for message in received[:-1]] == VALUES
    assert all(message["headers"] == {"ewms-pilot": "p"} for message in received[:-1])
    assert received[-1]["headers"][events.DATA_ENCODING] == "base64"
    assert events.decode(events.encode(binary), None).data == binary
    assert base64.b64decode(received[-1]["data"]) == binary
