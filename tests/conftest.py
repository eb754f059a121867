"""Fixtures that several suites share: the real things are started once a session, and only when a test asks."""

import json
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import structlog

from ewms.groups import leaves
from ewms.testing.held import held

if TYPE_CHECKING:
    from ewms.testing.broker import NatsServer, RabbitServer
    from ewms.testing.docker import DockerHost
    from ewms.testing.pool import Pool
    from ewms.testing.prometheus import PrometheusHost


T = TypeVar("T")

# Shells start what runs in the background with SIGINT ignored, and children inherit that; some tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


def pytest_configure(config: pytest.Config) -> None:
    saw("Python", platform.python_version())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """A skip in an async test says why, too: pytest-trio raises one without reason for the group that it comes in."""
    try:
        return (yield)
    except pytest.skip.Exception as skipped:
        if skipped.msg or not isinstance(skipped.__context__, BaseExceptionGroup):
            raise
        raise next(leaves(skipped.__context__)) from None


def saw(name: str, version: str) -> None:
    """Note, where EWMS_TEST_VERSIONS names a file, that tests run with this version; `nox -s versions` reads it."""
    if path := os.environ.get("EWMS_TEST_VERSIONS"):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        seen = json.loads(file.read_text()) if file.exists() else {}
        seen.setdefault(name, {})[version] = datetime.now(UTC).date().isoformat()
        file.write_text(json.dumps(seen))


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    """A directory that an ordinary user may walk into (pytest's own is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="ewms-tests-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    if os.environ.get("EWMS_TEST_KEEP") is None:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def had() -> Iterator[None]:
    """What cannot be had here skips the test; where EWMS_TEST_REQUIRED is set, as `.ci/run` does, it fails.

    Another Python is no part of what this project installs: without it the test is skipped there, too.
    """
    from ewms.testing.pool.steps import PoolUnavailable, PythonMissing

    try:
        yield
    except PoolUnavailable as error:
        if os.environ.get("EWMS_TEST_REQUIRED") and not isinstance(error, PythonMissing):
            raise
        pytest.skip(f"not to be had here: {error}")


@pytest.fixture(scope="session")
def needed() -> Callable[[], AbstractContextManager[None]]:
    """A context in which a test gets a real thing; where that cannot be had the test is skipped, but in CI it fails."""
    return had


@contextmanager
def shared(directory: Path, make: Callable[..., AbstractAsyncContextManager[T]], **options: object) -> Iterator[T]:
    """A real thing in a directory of its own."""
    directory.mkdir()
    with had(), held(partial(make, directory, progress=say, **options)) as opened:
        yield opened


def wheel() -> Path | None:
    """The wheel that nox built of this work tree."""
    path = os.environ.get("EWMS_TEST_WHEEL")
    return Path(path) if path else None


@pytest.fixture(scope="session")
def pool(session_dir: Path) -> "Iterator[Pool]":
    """A real HTCondor pool with RabbitMQ, shared by the session."""
    from ewms.testing.pool import open_pool

    with shared(session_dir / "pool", open_pool, wheel=wheel()) as opened:
        saw("HTCondor", opened.versions.condor)
        saw("Apptainer", opened.versions.apptainer)
        saw("RabbitMQ", opened.versions.rabbitmq)
        yield opened


@pytest.fixture(scope="session")
def tms_image(session_dir: Path, pool: "Pool") -> Iterator[str]:
    """The TMS's image in the pool: its path there, `/images/…:TAG`, for `apptainer run`."""
    from ewms.testing.pool import open_tms_image

    with shared(session_dir / "tms-image", partial(open_tms_image, pool), wheel=wheel()) as path:
        yield path


@pytest.fixture(scope="session")
def docker_host(session_dir: Path) -> "Iterator[DockerHost]":
    """A real Docker daemon with a task image and a registry, shared by the session."""
    from ewms.testing.docker import open_docker

    with shared(session_dir / "docker-host", open_docker, wheel=wheel()) as opened:
        saw("Docker", opened.version)
        yield opened


@pytest.fixture(scope="session")
def prometheus_host(session_dir: Path) -> "Iterator[PrometheusHost]":
    """A machine with Prometheus and promtool, shared by the session."""
    from ewms.testing.prometheus import open_prometheus

    with shared(session_dir / "prometheus-host", open_prometheus) as opened:
        yield opened


@pytest.fixture(scope="session")
def rabbit(session_dir: Path) -> "Iterator[RabbitServer]":
    """A real RabbitMQ server without a pool around it, shared by the session."""
    from ewms.testing.broker import open_rabbitmq

    with shared(session_dir / "rabbit", open_rabbitmq) as opened:
        saw("RabbitMQ", opened.version)
        yield opened


@pytest.fixture(scope="session")
def nats(session_dir: Path) -> "Iterator[NatsServer]":
    """A real NATS server with JetStream, shared by the session."""
    from ewms.testing.broker import open_nats

    with shared(session_dir / "nats", open_nats) as opened:
        saw("NATS", opened.version)
        yield opened
