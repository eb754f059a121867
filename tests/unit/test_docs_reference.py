"""The reference is made from the code: all of it, with meanings; and the documentation's index has every page."""

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from ewms.contract import ChirpAttribute, PilotStatus
from ewms.pilot import events
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import PilotSettings
from ewms.settings import variables
from ewms.tms.inside import Inside
from ewms.tms.metrics import Metrics
from ewms.tms.overview import Overview, Row
from ewms.tms.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
INDEX = (DOCS / "index.md").read_text()


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("reference")
    reference.write_reference(directory)
    return {path.stem: path.read_text() for path in directory.iterdir()}


def rows(page: str) -> list[list[str]]:
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| ")]


def test_the_index_has_every_page(pages: dict[str, str]) -> None:
    listed = set(re.findall(r"^reference/([\w-]+)$", INDEX, re.MULTILINE))
    assert listed == pages.keys()
    own = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert own == set(re.findall(r"^([\w-]+)$", INDEX.partition("```{toctree}")[2], re.MULTILINE))


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("tms-settings", [var.name for _, var in variables(Settings)]),
        ("pilot-settings", [var.name for _, var in variables(PilotSettings)]),
        ("exit-statuses", [status.name for status in ExitStatus]),
        ("chirp-attributes", [*ChirpAttribute, *PilotStatus]),
        ("tms-pages", [field.name for cls in (Overview, Row) for field in attrs.fields(cls)]),
        (
            "message-headers",
            [
                value
                for name, value in vars(events).items()
                if name.isupper() and str(value).startswith("ewms-") and not name.startswith("_")
            ],
        ),
    ],
)
def test_a_page_has_all(pages: dict[str, str], page: str, names: list[str]) -> None:
    check(pages, page, names)


async def test_the_metrics_page_has_all(pages: dict[str, str]) -> None:
    check(pages, "tms-metrics", [family.name for family in Metrics().families])


async def test_the_health_page_has_those_keys(pages: dict[str, str]) -> None:
    page = Inside().pages("/healthz")
    assert page is not None
    check(pages, "tms-pages", list(json.loads(page.body)))


def check(pages: dict[str, str], page: str, names: list[str]) -> None:
    found = [row for row in rows(pages[page]) if any("`" in cell for cell in row)]
    assert names
    for name in names:
        mine = [row for row in found if any(f"`{name}`" in cell for cell in row[:2])]
        assert mine, f"{page}: nothing about {name}"
        assert re.search(r"[a-z]{3}", " ".join(mine[0]).replace(f"`{name}`", "")), f"{page}: no word about {name}"


def test_log_messages_are_constant_and_their_fields_explained(reference: Any, pages: dict[str, str]) -> None:
    services = reference.messages(["tms", "wms", "pilot"])
    assert len(services) > 150
    for message in services:
        assert f"| {message.text} |".replace("\n", " ") in pages["log-messages"]
    used = [field for message in services for field in message.fields]
    rare = [name for name in reference.LOG_FIELDS if used.count(name) < 2]
    assert rare == [], "explained, but hardly used"


def test_no_message_is_missed(reference: Any) -> None:
    """Only the helpers themselves, which are given the text, log what is no constant."""
    unknown = {path.name for path, call in reference.log_calls(["tms", "wms", "pilot"]) if not is_constant(call)}
    assert unknown == {"starting.py", "watch.py"}


def is_constant(call: ast.Call) -> bool:
    return any(isinstance(each, ast.Constant) for each in call.args)
