"""The two grounds, as one parametrized fixture."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ewms.testing.grounds import Ground, open_embedded_ground, pool_ground

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
