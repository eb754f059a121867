"""docs/faults.md names a test for each fault, and each test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
_ROW = re.compile(r"^\| ([TP]\d+) \|(.*)\|$", re.MULTILINE)
_NAMED = re.compile(r"`tests/([\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[tuple[str, str]]]:
    """The tests of each row, as (file below tests/, function)."""
    text = (TESTS.parent / "docs" / "faults.md").read_text()
    found = [(number, _NAMED.findall(row)) for number, row in _ROW.findall(text)]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("service", ["T", "P"])
def test_every_fault_has_its_row(rows: dict[str, list[tuple[str, str]]], service: str) -> None:
    assert {number for number in rows if number[0] == service} == {f"{service}{n}" for n in range(1, 17)}


def test_every_row_names_tests_that_exist(rows: dict[str, list[tuple[str, str]]]) -> None:
    missing = [(number, file, name) for number, named in rows.items() for file, name in named if not _has(file, name)]
    assert missing == []
    assert [number for number, named in rows.items() if not named] == []


def _has(file: str, name: str) -> bool:
    path = TESTS / file
    if not path.is_file():
        return False
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, definitions) and node.name == name for node in ast.walk(ast.parse(path.read_text())))
