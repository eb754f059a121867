"""docs/messages.md has each warning and error that the TMS can log, and none that it cannot."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "messages.md").read_text()
SOURCES: Final = [
    *(ROOT / "ewms" / "tms").rglob("*.py"),
    *(ROOT / "ewms" / "wms").rglob("*.py"),
    ROOT / "ewms/supervision.py",
]
LEVELS: Final = ("warning", "error", "critical")
COMMANDS: Final = {"top", "log_cli.py"}
"""What has no log: it speaks to a terminal."""


def calls() -> Iterator[ast.Call]:
    for path in SOURCES:
        if not COMMANDS & set(path.parts):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def texts(node: ast.expr) -> set[str]:
    """The constants in an expression, such as the two of `a if b else c`."""
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def logged() -> set[str]:
    """The texts of calls `log.warning(text, …)`, and of `fault.say(text, …)` (a warning, once)."""
    found: set[str] = set()
    for call in calls():
        match call.func:
            case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in LEVELS and call.args:
                found |= texts(call.args[0])
            case ast.Attribute(attr="say") if call.args:
                found |= texts(call.args[0])
    return found


def anywhere() -> set[str]:
    return {text for call in calls() for argument in call.args for text in texts(argument)}


def explained() -> set[str]:
    """The texts in the first column of the tables."""
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    return {text for row in rows for text in re.findall(r"`([^`]+)`", row)}


def test_each_is_explained() -> None:
    assert len(logged()) > 50
    assert sorted(logged() - explained()) == []


def test_each_exists() -> None:
    assert sorted(explained() - anywhere()) == []


def test_each_row_has_a_cure() -> None:
    for row in re.findall(r"^\| `.*$", PAGE, re.MULTILINE):
        assert len([cell for cell in row.strip("|").split(" | ") if cell.strip()]) == 3, row
