"""docs/pilot-errors.md has every error text that the pilot can give, with a cause; and none that it cannot."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ewms.pilot.errors import ExitStatus

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "pilot-errors.md").read_text()
SOURCES = [*sorted((ROOT / "ewms" / "pilot").rglob("*.py")), ROOT / "ewms" / "settings.py"]
KINDS = {
    "ArgumentsError",
    "BadEvent",
    "BadMessage",
    "BadOutput",
    "BrokerLost",
    "BrokerRefused",
    "ContainerError",
    "DataDirectoryError",
    "EventError",
    "ImageUnusable",
    "InitFailed",
    "MountRefused",
    "PublishRefused",
    "QueueUnavailable",
    "SelfCheckFailed",
}
"""The errors that a user gets to see."""
HOLE = "…"
ELSEWHERE = {
    "task failed (exit code …): …",
    "task failed: [Timeout-Error] timed out after …s",
    "task failed: …",
    "[Apptainer-Error] …",
    "[Bwrap-Error] …",
}
"""Texts that are put together in another way."""


def skeleton(node: ast.expr) -> str:
    """A text with `…` where something is put in; "" where it is not made there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    else:
        return ""
    return normal(text)


def normal(text: str) -> str:
    # A cell of the page is in backticks, and names of variables may be put together there.
    return re.sub(r"…[A-Z_]*(?=:| |$)|(?<![\w…])_?EWMS_PILOT_[A-Z_]+(?=:)", HOLE, text.replace("`", "")).replace(
        "……", HOLE
    )


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Where, and which text."""
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name == "TaskOverLimit":
                kind, text = (skeleton(each) for each in node.args)
                yield place, f"task failed: [{kind}-Error] it {text}"
            elif node.args and (name in KINDS or (name == "ValueError" and path.name == "settings.py")):
                yield place, skeleton(node.args[0])
        elif isinstance(node, ast.Yield) and node.value is not None and path.name in ("checks.py", "mounts.py"):
            yield place, skeleton(node.value)


TEXTS = {text: place for path in SOURCES for place, text in texts_of(path) if re.search(r"[a-z]{3}", text)}


def documented() -> set[str]:
    """The texts in the cells of the page's tables for errors."""
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [row[1] if re.match(r"\| \d+$", row[0]) else row[0] for row in rows]
    return {normal(text) for cell in cells for text in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("text", sorted(TEXTS))
def test_every_text_has_its_row(text: str) -> None:
    assert text in documented(), f"{TEXTS[text]}: give it a row in docs/pilot-errors.md, with cause and cure"


def test_the_page_has_no_other_text() -> None:
    said = "".join(path.read_text() for path in SOURCES)
    assert len(TEXTS) > 80
    for text in documented() - TEXTS.keys() - ELSEWHERE:
        pieces = [piece.strip(" :") for piece in text.split(HOLE)]
        assert all(piece in said for piece in pieces), text


def test_every_exit_status_has_its_place() -> None:
    named = {
        int(number)
        for number in re.findall(r"exit status (\d+)\)|^\| (\d+) \|", PAGE, re.MULTILINE)
        for number in number
        if number
    }
    assert named == {status.value for status in ExitStatus} - {ExitStatus.OK}
