"""docs/operators.md speaks of settings, commands and files that there are."""

import re
from pathlib import Path

import click
import pytest

from ewms.cli import main
from ewms.settings import variables
from ewms.tms.metrics import Metrics
from ewms.tms.settings import Settings

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operators.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:`|[$;] )ewms (\w+)(?: tms)? ?(--[\w-]+)?", GUIDE)))


def test_its_settings_exist() -> None:
    named = set(re.findall(r"\b(?:TMS|EWMS|JOB_EVENT|TASKFORCE)_[A-Z_]+\b", GUIDE))
    assert len(named) > 5
    assert named <= {variable.name for _, variable in variables(Settings)}


@pytest.mark.parametrize(("command", "option"), COMMANDS)
def test_its_commands_exist(command: str, option: str) -> None:
    assert isinstance(main, click.Group)
    found = main.get_command(click.Context(main), command)
    assert found is not None
    assert not option or any(option in parameter.opts for parameter in found.params)


async def test_its_metrics_exist() -> None:
    named = set(re.findall(r"\bewms_tms_\w+", GUIDE))
    assert named
    text = Metrics().text().decode()
    assert [name for name in named if name not in text] == []


def test_its_unit_and_messages_exist() -> None:
    named = re.findall(r"containers/systemd/[\w@.*-]+", GUIDE)
    assert named
    assert [pattern for pattern in named if not list(ROOT.glob(pattern))] == []
    sources = "".join(path.read_text() for path in (ROOT / "ewms" / "tms").rglob("*.py"))
    for message in re.findall(r"^\[\w+ *\] (.*?) \[ewms", GUIDE, re.MULTILINE):
        assert f'"{message}"' in sources
