"""The two grounds, as one parametrized fixture; and the pilot that is in production now."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from todays import IMAGE as TODAYS_IMAGE

from ewms.testing.grounds import Ground, open_embedded_ground, pool_ground
from ewms.testing.held import held
from ewms.testing.pool.images import bare_image
from ewms.testing.pool.places import default_cache_dir
from ewms.testing.pool.pypi import VERSION, PypiPilot, pypi_pilot, pypi_pilot_image
from ewms.testing.pool.rootfs import root_filesystem

if TYPE_CHECKING:
    from ewms.testing.pool import Pool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is an integration test, on whatever ground it runs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def work_dir(session_dir: Path, request: pytest.FixtureRequest) -> Path:
    """This test's own directory."""
    directory = session_dir / "".join(c if c.isalnum() else "-" for c in request.node.name)
    directory.mkdir()
    return directory


@pytest.fixture(params=["embedded", pytest.param("pool", marks=pytest.mark.pool)])
async def ground(request: pytest.FixtureRequest, work_dir: Path) -> AsyncIterator[Ground]:
    """Where the test runs: the embedded schedd and broker, or the session's real pool."""
    if request.param == "embedded":
        async with open_embedded_ground(work_dir, print) as opened:
            yield opened
    else:
        pool: Pool = request.getfixturevalue("pool")
        yield pool_ground(pool, pool.job_dir.parent)


@pytest.fixture(scope="session")
def todays_pilot(needed: Callable[[], AbstractContextManager[None]]) -> Iterator[PypiPilot]:
    """PyPI's `ewms-pilot`, installed: it depends on a package index, and on a Python that need not be here."""
    with needed(), held(lambda: pypi_pilot(cache_dir=default_cache_dir(), progress=print)) as installed:
        yield installed


@pytest.fixture(scope="session")
def todays_image(
    pool: "Pool", todays_pilot: PypiPilot, needed: Callable[[], AbstractContextManager[None]]
) -> Iterator[str]:
    """An image that runs it, where the pool's jobs see it as one on CVMFS."""
    path = f"{TODAYS_IMAGE.rpartition(':')[0]}:{VERSION}"

    @asynccontextmanager
    async def shown() -> AsyncIterator[str]:
        cache_dir = default_cache_dir()
        async with (
            root_filesystem("pilot-root", cache_dir=cache_dir, progress=print) as root,
            bare_image("pilot", root, inside=pool.inside, cache_dir=cache_dir, progress=print) as base,
            pypi_pilot_image(todays_pilot, base, cache_dir=cache_dir, progress=print) as image,
        ):
            await pool.inside.bind(image, path)
            yield path

    with needed(), held(shown) as opened:
        yield opened
