"""Servers for the contract suites."""

import logging
import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import pytest
from broker_places import PARAMS, REAL, Place
from pulsar_standin import Standin, open_standin

from ewms.secret import Secret
from ewms.testing.held import held


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


@pytest.fixture(scope="session")
def pulsar_standin() -> Iterator[Standin]:
    """A stand-in for a Pulsar broker, for the true client library."""
    pytest.importorskip("pulsar")
    with held(partial(open_standin, "the-token-of-these-tests")) as standin:
        yield standin


@pytest.fixture(params=PARAMS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A queue on one of the brokers."""
    queue = f"test-{uuid.uuid4().hex[:12]}"
    if request.param == "local":
        return Place("local", str(tmp_path / "broker"), Secret(""), queue)
    if request.param == "pulsar":
        standin = request.getfixturevalue("pulsar_standin")
        return Place("pulsar", standin.address, standin.token, queue)
    server = request.getfixturevalue(REAL[request.param])
    return Place(request.param, server.address, server.token, queue)
