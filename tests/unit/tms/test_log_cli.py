"""`ewms log` as an operator uses it."""

import gzip
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ewms.cli import main

JEL = Path(__file__).parents[2] / "data" / "jel"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


def test_json_is_one_object() -> None:
    result = run("--json", JEL / "factory-with-notes.jel", JEL / "vacate-rerun.jel")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "taskforces": {
            "TF-1": {
                "cluster_id": 18,
                "compound_statuses": {"REMOVED": {"null": 1}},
                "top_task_errors": {},
                "complete": True,
            },
            "cluster:70": {
                "cluster_id": 70,
                "compound_statuses": {"RUNNING": {"null": 1}},
                "top_task_errors": {},
                "complete": False,
            },
        },
        "events": 20,
        "damaged": 0,
    }


def test_two_clusters_of_one_taskforce_are_both_shown() -> None:
    result = run("--json", JEL / "factory-with-notes.jel", JEL / "submit-notes-attrs.jel")
    assert set(json.loads(result.output)["taskforces"]) == {"TF-1", "cluster:12"}


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_with_and_without_rich(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    result = run(JEL / "factory-with-notes.jel", JEL / "vacate-rerun.jel")
    assert result.exit_code == 0
    assert "TF-1" in result.output
    assert "1 RUNNING" in result.output
    assert "2 taskforces, 20 events, 0 damaged" in result.output


def test_a_compressed_log(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel.gz"
    path.write_bytes(gzip.compress((JEL / "vacate.jel").read_bytes()))
    assert json.loads(run("--json", path).output)["events"] == 11
    path.write_bytes(path.read_bytes()[:-20])
    result = run("--json", path)
    assert result.exit_code == 1
    assert "cannot read" in result.output


def test_why_tells_the_story() -> None:
    result = run("--why", "cluster:147", JEL / "input-missing-hold.jel", JEL / "vacate.jel")
    assert result.exit_code == 0
    assert "1 × held (1 job): the input files could not be transferred: Transfer input files" in result.output
    assert "1 × evicted (1 job): Transfer input files failure" in result.output
    assert "the cluster has ended" in result.output
    assert "vacate" not in result.output


def test_why_of_an_unknown_taskforce() -> None:
    result = run("--why", "TF-none", JEL / "vacate.jel")
    assert result.exit_code == 1
    assert "no taskforce TF-none" in result.output


def test_follow_needs_a_growing_log() -> None:
    result = run("--follow", "--json", JEL / "vacate.jel")
    assert result.exit_code == 2
