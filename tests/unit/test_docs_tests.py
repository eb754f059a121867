"""Each test that a page of the documentation names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = {
    page.name: re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    for page in sorted((ROOT / "docs").glob("*.md"))
}


def test_moving_over_is_tested() -> None:
    assert len(NAMED["moving.md"]) > 8


@pytest.mark.parametrize("page", [page for page, named in NAMED.items() if named])
def test_they_exist(page: str) -> None:
    for file, name in NAMED[page]:
        assert (ROOT / file).is_file(), file
        nodes = ast.walk(ast.parse((ROOT / file).read_text()))
        found = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not name or name in found, f"{file}::{name}"
