"""A TMS's pages → a snapshot (pure)."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from ewms.tms.overview import load
from ewms.tms.top.model import Calls, Site, Snapshot, worst_first

_PREFIX: Final = "ewms_tms_"
_CALLS: Final = {"WMS": "wms_seconds", "schedd": "schedd_seconds"}
_COUNTERS: Final = {
    "start orders": ("orders_total", "start"),
    "submitted": ("submits_total", "submitted"),
    "adopted": ("submits_total", "found"),
    "refused": ("submits_total", "refused"),
    "stop orders": ("orders_total", "stop"),
    "removed": ("removes_total", "removed"),
    "archived": ("files_total", "archived"),
    "file faults": ("files_total", "failed"),
}
"""What is shown as a rate: the words for it → the series and its label's value."""
_NO_HISTORY: Final = "the schedd's history cannot be asked"

Series = Mapping[str, Mapping[tuple[str, ...], float]]
"""Name → values of the labels, by the labels' names in alphabetical order → value."""


def snapshot(metrics: str, taskforces: str, *, at: float) -> Snapshot:
    """What a TMS's `/metrics` and `/taskforces` say, read at `at` (s).

    Raises:
        ValueError: that is not from a TMS.
    """
    found = series(metrics)
    version = next(iter(found.get(f"{_PREFIX}info", {})), None)
    if version is None:
        raise ValueError("these are not the metrics of a TMS")

    def values(name: str) -> dict[str, float]:
        return {labels[-1] if labels else "": value for labels, value in found.get(f"{_PREFIX}{name}", {}).items()}

    def single(name: str) -> float:
        return found.get(name, {}).get((), 0)

    failures = values("site_failures")
    return Snapshot(
        at=at,
        title=f"TMS {version[0]}",
        started_at=single("process_start_time_seconds"),
        overview=load(taskforces),
        counters={words: values(name).get(label, 0) for words, (name, label) in _COUNTERS.items()},
        warnings=_warnings(found),
        calls={words: _calls(found, _PREFIX + name) for words, name in _CALLS.items()},
        sites=worst_first(Site(name, int(n), int(failures.get(name, 0))) for name, n in values("site_runs").items()),
        suspicious=tuple(values("suspicious")),
        excluded=tuple(values("excluded")),
        stuck=values("stuck"),
        log_lag_bytes=single(f"{_PREFIX}log_lag_bytes"),
        log_lag_seconds=single(f"{_PREFIX}log_lag_seconds"),
        report_lag_seconds=single(f"{_PREFIX}report_lag_seconds"),
        memory=single("process_resident_memory_bytes"),
        troubles=(_NO_HISTORY,) if single(f"{_PREFIX}history_missing") else (),
    )


def series(text: str) -> Series:
    """Prometheus' text format as a table.

    Raises:
        ValueError: it is none.
    """
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def _warnings(found: Series) -> dict[str, float]:
    # Labels: event, level.
    return {labels[0]: value for labels, value in found.get(f"{_PREFIX}log_events_total", {}).items()}


def _calls(found: Series, name: str) -> Calls:
    # Labels: call, outcome.
    def total(what: str, *, failed: bool = False) -> float:
        return sum(
            value for labels, value in found.get(f"{name}_{what}", {}).items() if not failed or labels[1] != "ok"
        )

    return Calls(total("count"), total("count", failed=True), total("sum"))
