"""The brokers that the contract suites run on: the embedded one, real servers, and a stand-in for Pulsar's."""

from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import Broker, Delivery, Source
from ewms.secret import Secret

PATIENCE = 60
"""Longer than any broker here takes for anything; a passing test never waits this long."""

REAL = {"rabbitmq": "rabbit_access", "nats": "nats_access"}
"""Broker type → the fixture that has a server's address and token."""

REAL_PARAMS = [pytest.param(name, marks=pytest.mark.broker) for name in REAL]
PARAMS = ["local", "pulsar", *REAL_PARAMS]


@attrs.frozen
class Place:
    """A broker, and a queue of this test's own on it."""

    broker_type: str
    address: str
    token: Secret
    queue: str

    def connect(self) -> AbstractAsyncContextManager[Broker]:
        return open_broker(self.broker_type, self.address, self.token, give_up_after=PATIENCE)


async def put(broker: Broker, queue: str, *bodies: bytes) -> None:
    async with broker.sink(queue) as sink:
        for number, body in enumerate(bodies):
            await sink.publish(body, message_id=f"m-{number}")


async def take(source: Source) -> Delivery:
    with trio.fail_after(PATIENCE):
        return await source.receive()


async def nothing_comes(source: Source, within: float = 0.3) -> bool:
    with trio.move_on_after(within) as scope:
        await source.receive()
    return scope.cancelled_caught
