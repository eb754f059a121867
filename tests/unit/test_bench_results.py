"""What the bench makes of its figures: ratios, goals, tables, and their places on a page."""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import measure
import plot
import pytest
import results
from measure import Goal, Measured, Measurement, Row, Skipped
from rich.console import Console

MACHINE = {"processor": "a fast one"}


def fixed(*figures: float) -> measure.Contender:
    return itertools.cycle(figures).__next__


def measured(*, less_is_better: bool = False) -> Measurement:
    row = Row(
        "reading",
        "events/s",
        {"ours": fixed(10, 20, 60), "theirs": fixed(10, 10, 20), "absent": Skipped("needs Python 9")},
        [Goal(15), Goal(3, "theirs"), Goal(1, "absent")],
        less_is_better,
    )
    return measure.measure("group", [row], 3, Console(quiet=True))


def test_contenders_run_in_turns() -> None:
    calls: list[str] = []

    def contender(name: str) -> measure.Contender:
        def run() -> float:
            calls.append(name)
            return 1.0

        return run

    measure.measure("g", [Row("r", "s", {name: contender(name) for name in "ab"})], 3, Console(quiet=True))
    assert calls == ["a", "b"] * 3


def test_a_ratio_is_the_median_of_each_runs_own() -> None:
    (row,) = measured().rows
    assert (row.median("ours"), row.spread("ours"), row.ratio("theirs")) == (20, 2.5, 2)
    assert [row.reached(goal) for goal in row.row.goals] == [20, 2, None]


@pytest.mark.parametrize(
    ("less_is_better", "words"),
    [
        (False, ["≥ 15: reached", "≥ 3 ×: not reached", "≥ 1 ×: not measured"]),
        (True, ["≤ 15: not reached", "≤ 3 ×: reached", "≤ 1 ×: not measured"]),
    ],
)
def test_goals_stand_beside_what_they_are_about(less_is_better: bool, words: list[str]) -> None:
    (row,) = measured(less_is_better=less_is_better).rows
    assert [line.goal for line in results.lines(row)] == words


def test_a_plot_shows_what_is_better_to_the_right() -> None:
    for less_is_better, bars in ((False, [2, 20 / 15]), (True, [0.5, 15 / 20])):
        (row,) = measured(less_is_better=less_is_better).rows
        assert [value for _, value in plot.bars(row)] == pytest.approx(bars)


def test_all_runs_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    results.save([measured()], MACHINE, path)
    kept = json.loads(path.read_text())
    (row,) = kept["groups"]["group"]["rows"]
    assert kept["machine"] == MACHINE
    assert row["contenders"]["ours"]["runs"] == [10, 20, 60]
    assert row["skipped"] == {"absent": "needs Python 9"}


def test_a_page_gets_a_groups_part_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(plot, "draw", lambda _measurement, path: drawn.append(path))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: group -->\nold\n<!-- end -->\nafter <!-- end -->\n")
    results.publish([measured()], MACHINE, "nox -s bench", page)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench: group -->\n")
    assert text.endswith("<!-- end -->\nafter <!-- end -->\n")
    assert "old" not in text
    assert "| reading | ours | 20 events/s | 250% |  | ≥ 15: reached |" in text
    assert drawn == [tmp_path / "page-group.svg"]
    with pytest.raises(ValueError, match="no marks"):
        results.publish([Measurement("other", (), 1, datetime.now(UTC), 0, 0, 0)], MACHINE, "", page)


def test_a_row_whose_ours_cannot_run_has_no_ratio() -> None:
    row = Row("r", "s", {"ours": Skipped("not here"), "theirs": fixed(1)}, [Goal(1)])
    assert [line.ratio for line in results.lines(Measured(row, {"theirs": [1]}))] == ["", ""]
