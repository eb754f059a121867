"""The trees of nurseries in docs/architecture.md have the children that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TREES = [
    set(re.findall(r"^main$|(?:[├└]─|⊃) (\w+)", tree, re.MULTILINE)) - {""}
    for tree in re.findall(r"^```\n(main\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]
CHILDREN = {"start", "start_soon"}
HELPERS = {"_housekeep": "run_housekeeping", "_watch": "watch_logs"}
"""Children whose whole work is another function's."""


def functions(service: str) -> set[str]:
    return {
        node.name
        for path in (ROOT / "ewms" / service).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize(("service", "tree"), [("tms", 0), ("pilot", 1)])
def test_its_names_exist(service: str, tree: int) -> None:
    assert len(TREES[tree]) > 5
    known = functions(service) | functions("wms") | {"in_flight", "intake"}
    assert TREES[tree] - known == set()


def test_every_child_of_the_tms_is_in_the_tree() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "ewms" / "tms" / "service.py").read_text()))
        if isinstance(node, ast.Call)
    ]
    started = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in CHILDREN]
    named = {argument.id for call in started for argument in call.args if isinstance(argument, ast.Name)}
    children = {HELPERS.get(name, name) for name in named & functions("tms")} - {"_live"}
    assert len(children) > 10
    assert children - TREES[0] == set()
