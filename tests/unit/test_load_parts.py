"""The parts of `nox -s load`: what counts as growth, and the page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.load.sampling import Sample, Series, heard, look, tell
from tests.marked import put, table

ROOT = Path(__file__).parents[2]


def series(memories: list[float], files: list[int], settled: float = 0) -> Series:
    samples = [Sample(n, n, memory, count) for n, (memory, count) in enumerate(zip(memories, files, strict=True))]
    return Series("a", "b", "c", samples, settled)


def test_growth_is_the_last_quarter_beside_the_first() -> None:
    assert series([50.0] * 8, [9] * 8).growth() == (0, 0)
    assert series([10.0, 20, 30, 40, 50, 60, 70, 80], [1, 1, 1, 1, 2, 2, 3, 3]).growth() == (60, 2)


def test_what_was_loaded_up_is_no_growth() -> None:
    assert series([1.0, 30, 50, 50, 50, 50], [1, 5, 9, 9, 9, 9], settled=2).growth() == (0, 0)


def test_a_process_tells_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    tell(0.0, 7)
    (sample,) = heard("noise\n" + capsys.readouterr().out)
    assert sample.done == 7
    assert sample.memory > 10
    assert sample.files > 2
    assert look([os.getpid(), 2**22 + 1])[0] > 10


def test_a_part_of_a_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- load: begin -->\nold\n<!-- load: end -->\nb\n")
    for number in ("1", "2"):
        put(page, "load", table(["x", "y"], [[number, "\\1"]]))
    expected = "# A\n<!-- load: begin -->\n\n| x | y |\n| --- | --- |\n| 2 | \\1 |\n\n<!-- load: end -->\nb\n"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="no marks for other"):
        put(page, "other", "")


def test_a_tiny_part_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.load", "--tiny", "--part", "log", "--out", str(tmp_path / "load.json")]
    folders = os.pathsep.join(["tests/bench", "tests/faults", os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": folders}, check=True, timeout=300)
    (found,) = json.loads((tmp_path / "load.json").read_text())
    assert found["part"] == "log"
    assert found["samples"][-1]["done"] > 0.0001
