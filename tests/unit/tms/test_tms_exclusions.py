import json
from pathlib import Path

import pytest
import structlog.testing

from ewms.tms.exclusions import Exclusions, can_be_avoided, load
from ewms.tms.review import exclude
from ewms.tms.settings import Settings
from ewms.tms.sites import Count, Sites
from ewms.tms.suspects import Exclusion, Suspect

NOW = 1_000_000.0
HOLE = Exclusion("site", "HOLE", NOW + 100, "20 of 20 failed", 0.1)


def settings(job_dir: Path, *, allowed: bool = True) -> Settings:
    (job_dir / ".tms").mkdir(exist_ok=True)
    return Settings(wms_address="http://unused", no_auth=True, job_dir=job_dir, exclude_suspicious=allowed)


def at(now: float, exclusions: Exclusions) -> Exclusions:
    return Exclusions(clock=lambda: now, known=tuple(exclusions.known()))


async def test_they_survive_a_restart_and_end_at_their_time(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    first = load(configured)
    assert first.known() == ()
    await first.replace([HOLE])
    again = load(configured)
    assert again.known() == (HOLE,)
    assert at(NOW + 99, again).avoided() == [("GLIDEIN_Site", "HOLE"), ("OSG_SITE_NAME", "HOLE")]
    assert at(NOW + 100, again).avoided() == []
    await again.replace([])
    assert load(configured).known() == ()


async def test_without_the_operators_word_nothing_is_excluded(tmp_path: Path) -> None:
    await load(settings(tmp_path)).replace([HOLE])
    assert load(settings(tmp_path, allowed=False)).known() == ()


@pytest.mark.parametrize("text", ["{", "[1]", '[{"kind": "site"}]', "\\xff", "[[]]", "null", "5"])
def test_a_damaged_file_is_told_and_counts_as_none(tmp_path: Path, text: str) -> None:
    configured = settings(tmp_path)
    (configured.state_dir / "exclusions.json").write_text(text)
    with structlog.testing.capture_logs() as logs:
        assert load(configured).known() == ()
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_name_that_would_change_the_submit_description_is_left_out(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    names = ["GOOD", "$ENV(HOME)", "a\nqueue 5", "end\\"]
    saved = [{"kind": "site", "name": name, "until": NOW, "reason": "", "share": 0.0} for name in names]
    (configured.state_dir / "exclusions.json").write_text(json.dumps(saved))
    assert [each.name for each in load(configured).known()] == ["GOOD"]
    assert [can_be_avoided(Suspect("site", name, Count(), 0.0)) for name in names] == [True, False, False, False]


async def test_a_full_disk_keeps_it_in_memory_and_is_told(tmp_path: Path) -> None:
    exclusions = load(settings(tmp_path))
    (tmp_path / ".tms").rmdir()
    with structlog.testing.capture_logs() as logs:
        await exclusions.replace([HOLE])
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert exclusions.known() == (HOLE,)


async def test_a_suspect_with_a_hostile_name_is_not_excluded() -> None:
    exclusions = Exclusions()
    decision = await exclude(exclusions, Sites(), [Suspect("host", "$(x)", Count(20, 20, 20, 0), 0.0)], NOW)
    assert (decision.added, decision.refused) == ((), ())
