"""What a dry run says of an order."""

import json
from pathlib import Path
from typing import Any

from ewms.testing.fakeschedd import FakeSchedd
from ewms.tms.dryrun import describe
from ewms.tms.settings import Settings
from ewms.wms.converter import read
from ewms.wms.models import StartOrder

ORDER = Path(__file__).parents[2] / "data" / "tms" / "start-order.json"


async def test_an_order_that_a_tms_would_refuse_for_its_input_files_is_told_as_such(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (tmp_path / "link").symlink_to(jobs)
    (tmp_path / "data").touch()
    settings = Settings(wms_address="http://wms", no_auth=True, job_dir=jobs)
    raw: dict[str, Any] = json.loads(ORDER.read_text())
    said = []
    for name in ("data", "link"):
        raw["taskforce"]["pilot_config"]["input_files"] = [str(tmp_path / name)]
        said.append(await describe(read(StartOrder, raw, "start order"), settings, FakeSchedd()))
    assert "\nuniverse = container\n" in said[0]
    assert "would be refused: pilot_config.input_files:" in said[1]
    assert "job directory" in said[1]
