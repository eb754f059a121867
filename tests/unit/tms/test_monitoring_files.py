"""Alert rules and dashboard name what exists: metrics, labels and their values, texts of the log; the docs too."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ewms.testing.pool.data import containers_dir
from ewms.tms import metrics
from ewms.tms.condor import base
from ewms.tms.eventlog.statuses import JobStatus
from ewms.tms.metrics import Metrics
from ewms.tms.outbox import Stage
from ewms.wms import errors

MONITORING = containers_dir() / "monitoring"
ROOT = Path(__file__).parents[3]
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

SCRAPE_LABELS = {"job", "instance"}
OUTCOMES = {"ok"} | {name for module in (base, errors) for name in vars(module) if name.startswith(("Condor", "WMS"))}
VALUES = {
    ("ewms_tms_orders_total", "kind"): set(get_args(metrics.OrderKind)),
    ("ewms_tms_submits_total", "outcome"): set(get_args(metrics.SubmitOutcome)),
    ("ewms_tms_removes_total", "outcome"): set(get_args(metrics.RemoveOutcome)),
    ("ewms_tms_files_total", "outcome"): set(get_args(metrics.FileOutcome)),
    ("ewms_tms_jobs", "status"): set(JobStatus),
    ("ewms_tms_taskforces", "stage"): {stage.value for stage in Stage},
    ("ewms_tms_wms_seconds_count", "outcome"): OUTCOMES,
    ("ewms_tms_schedd_seconds_count", "outcome"): OUTCOMES,
    ("ewms_tms_log_events_total", "level"): {"warning", "error", "critical"},
}
"""The values that labels can have, where that is a closed list."""

_SELECTOR = re.compile(r"\b(ewms_tms_\w+|process_\w+|up)\b(?:\{(.*?)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_VARIABLE = re.compile(r"\$\{?(\w+)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def expressions() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    yield from ((each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"])
    for each in DASHBOARD["templating"]["list"]:
        if each["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*), \w+\)", each["query"]["query"])
            assert inner is not None
            yield each["name"], inner[1]


async def known_series() -> dict[str, set[str]]:
    """Each series that a TMS, or Prometheus itself, may have: its name → its labels."""
    found = Metrics()
    known: dict[str, set[str]] = {"up": set()}
    for line in found.text().decode().splitlines():
        if line.startswith("process_"):
            known[line.split()[0]] = set()
    for family in found.families:
        labels = set(family.labels)
        if family.kind == "histogram":
            known |= {f"{family.name}_bucket": labels | {"le"}, f"{family.name}_sum": labels}
            known[f"{family.name}_count"] = labels
        else:
            known[family.name] = labels
    return known


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
async def test_every_query_is_about_what_exists(where: str, expression: str) -> None:
    known = await known_series()
    selectors = _SELECTOR.findall(expression)
    assert selectors, f"{where}: names no metric"
    labels = set(SCRAPE_LABELS)
    for name, matchers in selectors:
        assert name in known, f"{where}: no such metric: {name}"
        labels |= known[name]
        for label, value in _MATCHER.findall(matchers):
            assert label in known[name] | SCRAPE_LABELS, f"{where}: {name} has no label {label}"
            if (name, label) in VALUES:
                assert set(value.split("|")) <= VALUES[name, label], f"{where}: {label} is never {value}"
    for grouping in _GROUPING.findall(expression):
        assert set(re.split(r"\s*,\s*", grouping.strip())) <= labels, f"{where}: {grouping}"


def test_the_regular_expressions_see_what_is_wrong() -> None:
    assert _SELECTOR.findall('a / ewms_tms_jobs{status="HELD"}') == [("ewms_tms_jobs", 'status="HELD"')]
    assert _MATCHER.findall('status=~"A|B", x!="y"') == [("status", "A|B"), ("x", "y")]


async def test_each_metric_is_on_the_dashboard() -> None:
    shown = {name for _, expression in expressions() for name, _ in _SELECTOR.findall(expression)}
    for family in Metrics().families:
        assert any(name.startswith(family.name) for name in shown), family.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_cause_and_cure(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    texts = rule["annotations"]
    assert texts.keys() == {"summary", "cause", "cure"}
    where = "{{ $labels.place }}" if rule["alert"] == "TMSBadPlace" else "{{ $labels.instance }}"
    assert where in texts["summary"]
    sources = "".join(path.read_text() for path in (ROOT / "ewms").rglob("*.py"))
    for quoted in re.findall(r'\("([^"]+)"\)', texts["cure"]):
        assert f'"{quoted}' in sources, f"nothing logs: {quoted}"


def test_each_alert_has_its_paragraph() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    paragraphs = re.findall(r"^\*\*(TMS\w+)\*\*[ :]", text, re.MULTILINE)
    assert sorted(paragraphs) == sorted(rule["alert"] for rule in RULES)


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{panel['title']} lies on {other}"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
async def test_a_panel_is_one_that_grafana_can_draw(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries", "table"}
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "bytes", "percentunit", "dateTimeAsIso"}
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets)
    known = await known_series()
    for target in targets:
        assert set(_VARIABLE.findall(target["expr"])) <= {"job", "instance", "__rate_interval"}
        grouped = _GROUPING.findall(target["expr"])
        of_metrics = {label for name, _ in _SELECTOR.findall(target["expr"]) for label in known[name]} | SCRAPE_LABELS
        has = set(re.split(r"\s*,\s*", grouped[0])) if grouped else of_metrics
        assert set(_LEGEND.findall(target.get("legendFormat", ""))) <= has
        assert (target.get("format") == "table") is (panel["type"] == "table")
        for name in organized(panel):
            assert name in has | {"Time"} or re.fullmatch(r"Value( #[A-Z])?", name), f"there is no column {name}"


def organized(panel: dict[str, Any]) -> set[str]:
    """The columns that a table renames, hides or puts in order."""
    options = [each["options"] for each in panel.get("transformations", ()) if each["id"] == "organize"]
    return {name for each in options for kind in each.values() for name in kind}


def test_the_dashboard_is_of_the_schema_that_the_page_names() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    assert f"(schema {DASHBOARD['schemaVersion']}," in text
    assert DASHBOARD["uid"]
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}


def test_grafanas_own_model_knows_all_that_the_dashboard_says() -> None:
    register_default_plugins()
    known = json.loads(json.dumps(Dashboard.from_json(json.loads(json.dumps(DASHBOARD))), cls=JSONEncoder))
    # What its Prometheus data source reads beside the schema.
    formats = {"titleFormat", "textFormat"}
    assert set(missing(DASHBOARD, known)) == {f"annotations.list.0.{name}" for name in formats}


def missing(ours: Any, known: Any, path: str = "") -> Iterator[str]:
    """Where `ours` has something that is not, or is something else, in `known`."""
    if isinstance(ours, dict) and isinstance(known, dict):
        for key, value in ours.items():
            yield from missing(value, known[key], f"{path}{key}.") if key in known else (f"{path}{key}",)
    elif isinstance(ours, list) and isinstance(known, list) and len(ours) == len(known):
        for index, value in enumerate(ours):
            yield from missing(value, known[index], f"{path}{index}.")
    elif ours != known:
        yield path.removesuffix(".")


def test_the_sample_configuration_knows_the_rules_and_their_job() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert [(MONITORING / name).is_file() for name in config["rule_files"]] == [True]
    (scrape,) = config["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in next(rule["expr"] for rule in RULES if rule["alert"] == "TMSDown")
