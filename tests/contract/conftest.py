"""Servers for the contract suites."""

import logging
import os
from typing import Protocol

import attrs
import pytest

from ewms.secret import Secret


class HasAddress(Protocol):
    """What these suites need to know of a server."""

    @property
    def address(self) -> str: ...

    @property
    def token(self) -> Secret: ...


# Each frame of theirs is a line, and a failing test shows them all.
for _chatty in ("pika", "aiormq", "asyncio", "nats"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


@attrs.frozen
class RunningServer:
    address: str
    token: Secret


@pytest.fixture(scope="session")
def rabbit_access(request: pytest.FixtureRequest) -> HasAddress:
    """A RabbitMQ server: one that already runs, as two variables tell, or the session's own."""
    if address := os.environ.get("EWMS_TEST_RABBITMQ_ADDRESS"):
        return RunningServer(address, Secret(os.environ.get("EWMS_TEST_RABBITMQ_TOKEN", "")))
    server: HasAddress = request.getfixturevalue("rabbit")
    return server


@pytest.fixture(scope="session")
def nats_access(request: pytest.FixtureRequest) -> HasAddress:
    """A NATS server with JetStream: one that already runs, as two variables tell, or the session's own."""
    if address := os.environ.get("EWMS_TEST_NATS_ADDRESS"):
        return RunningServer(address, Secret(os.environ.get("EWMS_TEST_NATS_TOKEN", "")))
    server: HasAddress = request.getfixturevalue("nats")
    return server
