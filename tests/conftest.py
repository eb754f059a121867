"""Fixtures that several suites share: the real things are started once a session, and only when a test asks."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from ewms.testing.held import held

if TYPE_CHECKING:
    from ewms.testing.broker import NatsServer, RabbitServer
    from ewms.testing.docker import DockerHost
    from ewms.testing.pool import Pool


# Our logs go where pytest collects them, and a failed test's report is not drowned by those who answer polls.
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
for noisy in ("httpcore", "httpx", "hypercorn", "ewms.testing.wms"):
    logging.getLogger(noisy).setLevel(logging.WARNING)


def say(text: str) -> None:
    """Progress, straight to the terminal: building a pool takes a minute."""
    print(f"  … {text}", file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    """A directory that an ordinary user may walk into (pytest's own is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="ewms-tests-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    if os.environ.get("EWMS_TEST_KEEP") is None:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def pool(session_dir: Path) -> "Iterator[Pool]":
    """A real HTCondor pool with RabbitMQ, shared by the session."""
    from ewms.testing.pool import PoolUnavailable, open_pool

    wheel = os.environ.get("EWMS_TEST_WHEEL")
    work_dir = session_dir / "pool"
    work_dir.mkdir()
    try:
        with held(partial(open_pool, work_dir, progress=say, wheel=Path(wheel) if wheel else None)) as opened:
            yield opened
    except PoolUnavailable as error:
        pytest.skip(f"no real pool here: {error}")


@pytest.fixture(scope="session")
def rabbit(session_dir: Path) -> "Iterator[RabbitServer]":
    """A real RabbitMQ server without a pool around it, shared by the session."""
    from ewms.testing.broker import open_rabbitmq
    from ewms.testing.pool import PoolUnavailable

    work_dir = session_dir / "rabbit"
    work_dir.mkdir()
    try:
        with held(partial(open_rabbitmq, work_dir, progress=say)) as opened:
            yield opened
    except PoolUnavailable as error:
        pytest.skip(f"no RabbitMQ here: {error}")


@pytest.fixture(scope="session")
def docker_host(session_dir: Path) -> "Iterator[DockerHost]":
    """A real Docker daemon with a task image and a registry, shared by the session."""
    from ewms.testing.docker import open_docker
    from ewms.testing.pool import PoolUnavailable

    wheel = os.environ.get("EWMS_TEST_WHEEL")
    work_dir = session_dir / "docker-host"
    work_dir.mkdir()
    try:
        with held(partial(open_docker, work_dir, progress=say, wheel=Path(wheel) if wheel else None)) as opened:
            yield opened
    except PoolUnavailable as error:
        pytest.skip(f"no Docker daemon here: {error}")


@pytest.fixture(scope="session")
def nats(session_dir: Path) -> "Iterator[NatsServer]":
    """A real NATS server with JetStream, shared by the session."""
    from ewms.testing.broker import open_nats
    from ewms.testing.pool import PoolUnavailable

    work_dir = session_dir / "nats"
    work_dir.mkdir()
    try:
        with held(partial(open_nats, work_dir, progress=say)) as opened:
            yield opened
    except PoolUnavailable as error:
        pytest.skip(f"no NATS here: {error}")
