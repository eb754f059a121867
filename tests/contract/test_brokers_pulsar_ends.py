"""How a process ends that used Pulsar's client library, whose threads must neither abort it nor print anything."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from pulsar_standin import Command, ServerError, Standin, open_standin

from ewms.testing.proxy import open_proxy

pytest.importorskip("pulsar")

TOKEN = "the-token-of-these-tests"
QUEUE = "some-queue"
PATIENCE = 60


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with open_standin(TOKEN) as standin:
        yield standin


SCRIPT = """
import os, sys, trio
from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import BrokerError
from ewms.secret import Secret

async def main(address, queue):
    told = trio.lowlevel.FdStream(os.dup(0))
    token = Secret((await told.receive_some()).decode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, address, queue, token)
        await told.receive_some()
        nursery.cancel_scope.cancel()

async def use(address, queue, token):
    async with open_broker("pulsar", address, token, give_up_after=0.1) as broker:
        async with broker.source(queue, prefetch=1), broker.sink(queue) as sink:
            await sink.publish(b"x", message_id="1")
            await trio.sleep_forever()

status = 0
try:
    trio.run(main, *sys.argv[1:])
except* BrokerError:
    status = 3
sys.exit(status)
"""


@asynccontextmanager
async def script(address: str, queue: str) -> AsyncIterator[trio.Process]:
    """A process that uses a queue until its input ends."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", SCRIPT, address, queue],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    try:
        await process.stdin.send_all(TOKEN.encode())
        yield process
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()


async def ends_in_good_order(process: trio.Process) -> bool:
    assert process.stdin is not None
    await process.stdin.aclose()
    assert await output(process) == b""
    return await process.wait() == 0


async def output(process: trio.Process) -> bytes:
    assert process.stdout is not None
    with trio.fail_after(PATIENCE):
        return b"".join([data async for data in process.stdout])


@pytest.mark.parametrize("topic", ["refused", "persistent://no/such/thing/as/this"])
async def test_the_library_says_nothing_by_itself(standin: Standin, topic: str) -> None:
    standin.refuse[Command.SUBSCRIBE] = ServerError.AUTHORIZATION
    async with script(standin.address, topic) as process:
        assert await output(process) == b""
        assert await process.wait() == 3


async def test_a_process_ends_in_good_order_though_its_connections_are_stalled(standin: Standin) -> None:
    async with (
        open_proxy(standin.host, standin.port) as proxy,
        script(f"{proxy.host}:{proxy.port}", QUEUE) as process,
    ):
        await standin.until_seen(Command.SEND)
        proxy.stall()
        assert await ends_in_good_order(process)


ANSWERED = [Command.PARTITIONS, Command.LOOKUP, Command.SUBSCRIBE, Command.PRODUCER, Command.SEND]


@pytest.mark.parametrize("command", ANSWERED, ids=lambda command: command.name)
async def test_a_process_ends_in_good_order_though_it_waits_for_an_answer(standin: Standin, command: Command) -> None:
    standin.ignore.add(command)
    async with script(standin.address, QUEUE) as process:
        await standin.until_seen(command)
        assert await ends_in_good_order(process)
