"""docs/isolation.md has a line for each row that is tested, in the same order, and no other."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
_LINE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def test_the_table_is_what_is_tested() -> None:
    text = (TESTS.parent / "docs" / "isolation.md").read_text()
    assert _LINE.findall(text) == _tested()


def _tested() -> list[str]:
    """The names in ROWS, read without the modules that only an integration test can import."""
    module = ast.parse((TESTS / "integration" / "isolation_rows.py").read_text())
    (rows,) = (each for each in module.body if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == "ROWS")
    assert isinstance(rows.value, ast.Tuple)
    return [ast.unparse(name) for name in rows.value.elts]
