"""A real Prometheus reads a real TMS, knows our alert rules, and has what the dashboard asks for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alert_cases
import httpx
import pytest
import trio
import yaml
from asking import request, until

from ewms.testing.grounds import open_embedded_ground
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.ports import free_ports
from ewms.testing.prometheus import PrometheusHost
from ewms.testing.stand import open_stand
from ewms.tms.metrics import Metrics

pytestmark = pytest.mark.pool

MONITORING = containers_dir() / "monitoring"
DEADLINE_S = 120

ONLY_SOMETIMES = {
    "ewms_tms_excluded",
    "ewms_tms_log_events_total",
    "ewms_tms_site_failures",
    "ewms_tms_site_runs",
    "ewms_tms_stuck",
    "ewms_tms_suspicious",
}
"""Metrics of what a healthy TMS does not have from its first minute on."""


async def test_the_rules_are_good(prometheus_host: PrometheusHost) -> None:
    shutil.copy(MONITORING / "alerts.yml", prometheus_host.directory)
    done = await prometheus_host.promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    shutil.copy(MONITORING / "prometheus.yml", prometheus_host.directory)
    done = await prometheus_host.promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


async def test_each_alert_fires_and_does_not(prometheus_host: PrometheusHost) -> None:
    shutil.copy(MONITORING / "alerts.yml", prometheus_host.directory)
    for fires in (True, False):
        assert {case.alert for case in alert_cases.CASES if case.fires is fires} == alert_names()
    tests = prometheus_host.directory / "alert-tests.json"
    tests.write_text(json.dumps(alert_cases.promtool_tests("alerts.yml")))
    done = await prometheus_host.promtool("test", "rules", tests.name)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


async def test_it_reads_a_tms_that_works(prometheus_host: PrometheusHost, work_dir: Path) -> None:
    (port,) = free_ports(1)
    async with (
        open_embedded_ground(work_dir, print) as ground,
        open_stand(ground, work_dir) as stand,
        stand.tms(TMS_METRICS_PORT=str(port)),
        httpx.AsyncClient(base_url=await prometheus_host.serve(configuration(port)), trust_env=False) as http,
    ):
        prometheus = Asked(http)
        workflow = await stand.request(request(ground, "sleep 300", workers=2))
        await until(stand, workflow, lambda t: t["compound_statuses"].keys() == {"RUNNING"}, "running")
        await prometheus.eventually('ewms_tms_jobs{status="RUNNING"} == 2')
        await prometheus.eventually('up{job="ewms-tms"} == 1')
        assert await prometheus.value('ewms_tms_submits_total{outcome="submitted"}') == 1
        assert await prometheus.value('ewms_tms_taskforces{stage="open"}') == 1

        known = set(await prometheus.get("label/__name__/values"))
        for family in Metrics().families:
            name = f"{family.name}_count" if family.kind == "histogram" else family.name
            assert name in known or family.name in ONLY_SOMETIMES, name

        # Rates need two scrapes, and the rules one evaluation.
        await prometheus.eventually("sum(rate(ewms_tms_wms_seconds_count[1m])) > 0")
        rules = await prometheus.rules()
        assert {rule["name"] for rule in rules} == alert_names()
        assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []

        for title, query, is_sure in queries():
            found = await prometheus.ask(query)
            assert found or not is_sure, f"{title}: nothing to show"
        assert await prometheus.variables() == {"job": ["ewms-tms"], "instance": [f"127.0.0.1:{port}"]}


def alert_names() -> set[str]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


def configuration(port: int) -> dict[str, Any]:
    """The sample configuration, for a TMS at this port, and impatient."""
    config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    return config


DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())


def filled_in(query: str) -> str:
    """A query as Grafana would ask it."""
    for variable, value in {"$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}.items():
        query = query.replace(variable, value)
    return query


def queries() -> Iterator[tuple[str, str, bool]]:
    """Each query of the dashboard, and whether a healthy TMS must have an answer to it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            query = filled_in(target["expr"])
            yield panel["title"], query, not any(name in query for name in ONLY_SOMETIMES)
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], filled_in(annotation["expr"]), False


class Asked:
    """A Prometheus, asked through its API."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        answer = (await self._http.get(f"/api/v1/{path}", params=query)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def ask(self, query: str) -> list[dict[str, Any]]:
        return list((await self.get("query", query=query))["result"])

    async def value(self, query: str) -> float:
        (sample,) = await self.ask(query)
        return float(sample["value"][1])

    async def variables(self) -> dict[str, list[str]]:
        """What the dashboard's variables offer for choice."""
        found = {}
        for each in DASHBOARD["templating"]["list"]:
            if each["type"] == "query":
                selector, _, label = each["query"]["query"].removeprefix("label_values(").rstrip(")").rpartition(", ")
                found[each["name"]] = await self.get(f"label/{label}/values", **{"match[]": filled_in(selector)})
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """All alert rules, once each was evaluated."""
        with trio.fail_after(DEADLINE_S):
            while True:
                found = [rule for group in (await self.get("rules"))["groups"] for rule in group["rules"]]
                if all(rule["health"] != "unknown" for rule in found):
                    return found
                await trio.sleep(0.2)

    async def eventually(self, query: str) -> None:
        with trio.fail_after(DEADLINE_S):
            while not await self.ask(query):  # noqa: ASYNC110  nobody tells of a scrape
                await trio.sleep(0.2)
