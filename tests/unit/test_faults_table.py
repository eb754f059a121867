"""docs/faults.md and docs/security.md name a test in each line, and each test that they name exists."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
_ROW = re.compile(r"^\| ([TPS]\d+) \|(.*)\|$", re.MULTILINE)
_NAMED = re.compile(r"`tests/([\w/]+\.py)::(\w+)`")


PAGES = {"faults.md": {"T": 16, "P": 16}, "security.md": {"S": 19}}
"""How many lines each page has of each kind."""

Rows = dict[str, list[tuple[str, str]]]
"""The tests of each row, as (file below tests/, function)."""


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows(page: str) -> Rows:
    text = (TESTS.parent / "docs" / page).read_text()
    found = [(number, _NAMED.findall(row)) for number, row in _ROW.findall(text)]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_every_line_is_there(page: str, rows: Rows) -> None:
    assert list(rows) == [f"{kind}{n}" for kind, count in PAGES[page].items() for n in range(1, count + 1)]


def test_every_row_names_tests_that_exist(rows: Rows) -> None:
    missing = [(number, file, name) for number, named in rows.items() for file, name in named if not _has(file, name)]
    assert missing == []
    assert [number for number, named in rows.items() if not named] == []


def _has(file: str, name: str) -> bool:
    path = TESTS / file
    if not path.is_file():
        return False
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, definitions) and node.name == name for node in ast.walk(ast.parse(path.read_text())))
