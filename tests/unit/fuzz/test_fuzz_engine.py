"""The parts of `nox -s fuzz`: choices from bytes, findings of one kind, inputs that hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.child import Run
from tests.fuzz.source import Source
from tests.fuzz.target import Hangs, Target, file_name, limited, signature

ROOT = Path(__file__).parents[3]


@given(st.binary(max_size=100), st.integers(-5, 5), st.integers(0, 70000))
def test_choices_are_within_their_bounds_and_the_same_again(data: bytes, low: int, span: int) -> None:
    one, other = Source(data), Source(data)
    assert low <= one.integer(low, low + span) <= low + span
    other.integer(low, low + span)
    assert len(one.blob(10)) <= 10
    other.blob(10)
    assert repr(one.json()) == repr(other.json())
    assert one.rest() == other.rest()
    assert one.rest() == b""


def test_a_change_is_in_one_place() -> None:
    value = {"a": [1, {"b": 2}], "c": "d"}
    changed = [Source(bytes([number, *range(number, number + 20)])).changed(value) for number in range(200)]
    assert value == {"a": [1, {"b": 2}], "c": "d"}
    assert len({repr(each) for each in changed}) > 10


def broken(data: bytes) -> None:
    if b"x" in data:
        raise ValueError(f"x in {data!r}")
    if b"y" in data:
        raise KeyError("y")


def test_findings_of_one_kind_are_one_and_the_shortest_is_kept(tmp_path: Path) -> None:
    run = Run(Target("a", "b", broken), seconds=1e9, directory=tmp_path, engine="none")
    for data in (b"long x", b"x", b"fine", b"another x", b"y"):
        run.once(data)
    run.save()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["executions"] == 5
    assert 0 < report["cpu_s"] < 1e6
    assert sorted(name for name, _ in report["found"].values()) == sorted([file_name(b"x"), file_name(b"y")])
    assert (tmp_path / file_name(b"x")).read_bytes() == b"x"
    assert all("test_fuzz_engine.py" in kind for kind in report["found"])


def test_a_finding_is_told_by_our_own_line() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("")
    assert signature(caught.value).startswith("JSONDecodeError at test_fuzz_engine.py:")


def test_what_hangs_is_a_finding() -> None:
    def hang() -> None:
        while True:
            pass

    with limited(0.05), pytest.raises(Hangs):
        hang()


def test_the_command_lists_its_targets() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "log-damage " in done.stdout
