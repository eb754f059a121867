from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tms_bench import SCHEDD, Bench

from ewms.testing.fakeschedd import FakeSchedd
from ewms.testing.wms import open_standin
from ewms.tms.settings import Settings


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = Settings(
        wms_address="http://unused",
        no_auth=True,
        job_dir=tmp_path,
        outer_loop_wait=0.02,
        watcher_interval=0.02,
        error_wait=0.02,
        audit_interval=0.1,
        settle_time=0.1,
    )
    async with open_standin(locations={"here": SCHEDD}, needs_token=False) as standin:
        yield Bench(standin, FakeSchedd(), settings)
