"""For each alert in `containers/monitoring/alerts.yml`: series of which it alone fires, and some of which none does.

Series are in promtool's notation, one sample a minute: `0x5` is six zeros, `0+60x20` grows by 60, `_` is no sample.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

HERE = {"job": "ewms-tms", "instance": "ap:9310"}
IS_UP = "1x300"


def series(name: str, **labels: str) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in {**HERE, **labels}.items())
    return f"{name}{{{inner}}}"


def calls(service: str, **rates: str) -> dict[str, str]:
    """Counters of calls, by their outcome."""
    name = f"ewms_tms_{service}_seconds_count"
    return {series(name, call="a call", outcome=outcome): values for outcome, values in rates.items()}


def buckets(**values: str) -> dict[str, str]:
    """A histogram of schedd calls: `le_5` is the bucket up to 5 s, `le_Inf` all of them."""
    return {
        series("ewms_tms_schedd_seconds_bucket", call="query", outcome="ok", le=key[3:].replace("Inf", "+Inf")): each
        for key, each in values.items()
    }


def jobs(**values: str) -> dict[str, str]:
    return {series("ewms_tms_jobs", status=status): each for status, each in values.items()}


def submits(**values: str) -> dict[str, str]:
    return {series("ewms_tms_submits_total", outcome=outcome): each for outcome, each in values.items()}


@attrs.frozen
class Case:
    alert: str
    minute: int
    """When one looks whether it fires."""
    fires: bool
    series: Mapping[str, str]
    up: str | None = IS_UP


UP = series("up")
STUCK = series("ewms_tms_stuck", child="watch")
RESTARTED = series("process_start_time_seconds")
OPEN, LIMIT = series("process_open_fds"), series("process_max_fds")
LOGGED = series("ewms_tms_log_events_total", level="error", event="start order failed")
WARNED = series("ewms_tms_log_events_total", level="warning", event="audit skipped, the schedd gives no answer")
REPORT_LAG, LOG_LAG = series("ewms_tms_report_lag_seconds"), series("ewms_tms_log_lag_seconds")
REFUSED, STARTING = series("ewms_tms_taskforces", stage="refused"), series("ewms_tms_taskforces", stage="starting")
HISTORY = series("ewms_tms_history_missing")
SUSPICIOUS = series("ewms_tms_suspicious", place="site HOLE")
FILES = series("ewms_tms_files_total", outcome="failed")

CASES = [
    Case("TMSDown", 10, True, {}, up="0x20"),
    Case("TMSDown", 10, True, {}, up=None),
    Case("TMSDown", 10, False, {}, up="0x3 1x20"),
    Case("TMSRestarts", 20, True, {RESTARTED: "100x1 200x1 300x1 400x30"}),
    Case("TMSRestarts", 20, False, {RESTARTED: "100x9 200x30"}),
    Case("TMSStuck", 7, True, {STUCK: "_x5 950+60x10"}),
    Case("TMSStuck", 7, False, {STUCK: "950+60x3 stale"}),
    Case("TMSOpenFiles", 20, True, {OPEN: "900x40", LIMIT: "1024x40"}),
    Case("TMSOpenFiles", 20, False, {OPEN: "500x40", LIMIT: "1024x40"}),
    Case("TMSErrorsLogged", 92, True, {LOGGED: "_x90 1x5"}),
    Case("TMSErrorsLogged", 95, True, {LOGGED: "1x90 2x10"}),
    Case("TMSErrorsLogged", 150, False, {LOGGED: "1x200"}),
    Case("TMSErrorsLogged", 92, False, {WARNED: "_x90 1x5"}),
    Case("TMSReportLag", 25, True, {REPORT_LAG: "0+60x60"}),
    Case("TMSReportLag", 25, False, {REPORT_LAG: "0+60x10 0+60x10 0+60x10"}),
    Case("TMSWMSFailing", 30, True, calls("wms", WMSUnavailable="0+4x60", ok="0+1x60")),
    Case("TMSWMSFailing", 30, False, calls("wms", WMSUnavailable="0+1x60", ok="0+4x60")),
    Case("TMSWMSFailing", 30, False, calls("wms", WMSNotFound="0+4x60", ok="0+1x60")),
    Case("TMSUnauthorized", 30, True, calls("wms", WMSUnauthorized="0+1x60", ok="0+1x60")),
    Case("TMSUnauthorized", 14, False, calls("wms", WMSUnauthorized="0x5 1x60", ok="0+1x60")),
    Case("TMSEndsRefused", 70, True, {REFUSED: "3x90"}),
    Case("TMSEndsRefused", 70, False, {REFUSED: "3x20 stale"}),
    Case("TMSScheddFailing", 30, True, calls("schedd", CondorUnreachable="0+2x60", CondorBroken="0+2x60", ok="0+1x60")),
    Case("TMSScheddFailing", 30, False, calls("schedd", CondorUnreachable="0+1x60", CondorRefused="0+4x60")),
    Case("TMSScheddSlow", 70, True, buckets(le_5="0+1x90", le_30="0+10x90", le_Inf="0+10x90")),
    Case("TMSScheddSlow", 70, False, buckets(le_5="0+10x90", le_30="0+10x90", le_Inf="0+10x90")),
    Case("TMSHistoryMissing", 40, True, {HISTORY: "1x60"}),
    Case("TMSHistoryMissing", 40, False, {HISTORY: "1x10 0x60"}),
    Case("TMSLogLag", 20, True, {LOG_LAG: "0+60x40"}),
    Case("TMSLogLag", 20, False, {LOG_LAG: "0 400x5 0x5 400x5 0x30"}),
    Case("TMSStartsWait", 100, True, {STARTING: "2x120", **submits(submitted="5x120", found="0x120")}),
    Case("TMSStartsWait", 100, False, {STARTING: "2x120", **submits(submitted="0+1x120", found="0x120")}),
    Case("TMSStartsRefused", 60, True, submits(refused="0+1x120", submitted="7x120")),
    Case("TMSStartsRefused", 60, False, submits(refused="0+1x120", submitted="0+3x120")),
    Case("TMSStartsRefused", 60, False, submits(refused="0x30 2x60", submitted="7x120")),
    Case("TMSWorkersHeld", 40, True, jobs(HELD="50x60", RUNNING="100x60")),
    Case("TMSWorkersHeld", 40, False, jobs(HELD="50x60", RUNNING="1000x60")),
    Case("TMSWorkersHeld", 40, False, jobs(HELD="5x60", RUNNING="1x60")),
    Case("TMSNothingRuns", 130, True, jobs(IDLE="10x200", HELD="1x200")),
    Case("TMSNothingRuns", 130, False, jobs(IDLE="10x200", RUNNING="1x200")),
    Case("TMSNothingRuns", 130, False, jobs(RUNNING="1x200")),
    Case("TMSBadPlace", 40, True, {SUSPICIOUS: "0.9x60"}),
    Case("TMSBadPlace", 40, False, {SUSPICIOUS: "0.9x10 stale"}),
    Case("TMSFilesFailing", 30, True, {FILES: "0x10 1x60"}),
    Case("TMSFilesFailing", 30, False, {FILES: "3x60"}),
]


def promtool_tests(rules: str) -> dict[str, Any]:
    """The file for `promtool test rules`: each case, and that no other alert fires with it."""
    return {"rule_files": [rules], "evaluation_interval": "1m", "tests": list(_tests())}


def _tests() -> Iterator[dict[str, Any]]:
    for number, case in enumerate(CASES):
        given = {**({} if case.up is None else {UP: case.up}), **case.series}
        yield {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in given.items()],
            "promql_expr_test": [
                {
                    # promtool shows a failed test by its expression.
                    "expr": f'count by (alertname) (ALERTS{{alertstate="firing"}}) # CASES[{number}]: {case.alert}',
                    "eval_time": f"{case.minute}m",
                    "exp_samples": [{"labels": f'{{alertname="{case.alert}"}}', "value": 1}] if case.fires else [],
                }
            ],
        }
