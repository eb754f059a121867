"""The demo where no pool can be built: it says why first of all, and does the main job on the embedded ground."""

from pathlib import Path

import pytest

from ewms.demo.run import DemoFailed, Plan, run_demo
from ewms.testing.pool import surroundings

NO_ROOT = "it needs root (to enter a root file system); run this as root"


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an ordinary user is told, whoever runs the tests, and on whatever system."""
    monkeypatch.setattr(surroundings, "system", lambda: "")
    monkeypatch.setattr(surroundings, "user", lambda: NO_ROOT)


def plan(ground: str, work_dir: Path) -> Plan:
    return Plan(ground=ground, n_events=2, n_workers=1, work_dir=work_dir, wheel=None)


async def test_without_root_the_first_line_says_so_and_the_embedded_ground_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await run_demo(plan("auto", tmp_path))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith(f"no real pool here ({NO_ROOT}); using the embedded schedd and broker instead")
    assert "2 of 2 events processed, all results right, on the embedded schedd and broker" in "\n".join(rest)


async def test_who_insists_on_a_pool_gets_the_reason_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(DemoFailed, match="no real pool here: it needs root")):
        await run_demo(plan("pool", tmp_path))
    assert capsys.readouterr().out == ""
