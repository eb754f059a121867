"""What the TMS counts and measures, for Prometheus; stations use `Metrics` and know nothing of its library.

No label ever holds what comes from outside in any number of variants, such as an error's text or a taskforce's UUID.
"""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Final, Generic, Literal, TypeVar, get_args

import attrs
import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for nobody

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

OrderKind = Literal["start", "stop"]
SubmitOutcome = Literal["submitted", "found", "refused"]
"""`found`: the taskforce had its cluster already, from before a crash."""
RemoveOutcome = Literal["removed", "nothing to remove"]
FileOutcome = Literal["archived", "deleted", "failed"]

K = TypeVar("K", bound=str)

_UUID: Final = re.compile(r"(?<=/taskforces/)[^/]+")
_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MAX_EVENTS: Final = 300
"""Different log events that are told apart: our texts are constant, but who knows."""


@attrs.frozen
class Family:
    """What is told under one name."""

    name: str
    """As Prometheus has it; a histogram's series are this with `_bucket`, `_sum` and `_count`."""
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...]


class CounterBy(Generic[K]):
    """A counter for each of some kinds; all of them are there from the start, at 0."""

    def __init__(self, counter: Counter, kinds: tuple[K, ...]) -> None:
        self._counter = counter
        for kind in kinds:
            counter.labels(kind)

    def inc(self, kind: K, amount: float = 1) -> None:
        """Count."""
        self._counter.labels(kind).inc(amount)


class Table:
    """A gauge with a value for each of some names, all set at once."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def replace(self, values: Mapping[str, float]) -> None:
        """These are the values now; names that are not among them are gone."""
        self._gauge.clear()
        for name, value in values.items():
            self._gauge.labels(name).set(value)


class Metrics:
    """All of them, and the text in which Prometheus reads them. Needs a running Trio: times are Trio's."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.families: list[Family] = []
        """What there is, besides what every process tells of itself."""
        self._refreshers: list[Callable[[], None]] = []
        self._events: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            self.families.append(Family(f"ewms_tms_{name}_total", "counter", text, labels))
            return Counter(f"ewms_tms_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            self.families.append(Family(f"ewms_tms_{name}", "gauge", text, labels))
            return Gauge(f"ewms_tms_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            self.families.append(Family(f"ewms_tms_{name}", "histogram", text, labels))
            return Histogram(f"ewms_tms_{name}", text, labels, registry=registry, buckets=_SECONDS)

        # --- counted by the stations ---
        self.orders = CounterBy[OrderKind](
            counter("orders", "Orders fetched from the WMS", "kind"), get_args(OrderKind)
        )
        self.submits = CounterBy[SubmitOutcome](
            counter("submits", "Start orders, by what came of the submit", "outcome"), get_args(SubmitOutcome)
        )
        self.removes = CounterBy[RemoveOutcome](
            counter("removes", "Clusters that the schedd was told to remove", "outcome"), get_args(RemoveOutcome)
        )
        self.files = CounterBy[FileOutcome](
            counter("files", "Files and directories that housekeeping took care of", "outcome"), get_args(FileOutcome)
        )
        # --- set at each reading ---
        self.history_missing = gauge("history_missing", "1 while the schedd's history cannot be asked")
        self.jobs = Table(gauge("jobs", "Jobs of living clusters, by their status", "status"))
        self.taskforces = Table(gauge("taskforces", "Taskforces that are not completed, by their stage", "stage"))
        self.failed_factories = gauge(
            "failed_factories", "Living clusters that get no further workers: their job factory failed"
        )
        self.stuck = Table(gauge("stuck", "Parts of the TMS that show no life, and for how long (s)", "child"))
        self.site_runs = Table(gauge("site_runs", "Runs of pilots that ended in the last day, by site", "site"))
        self.site_failures = Table(gauge("site_failures", "Failed runs among them, by site", "site"))
        self.suspicious = Table(gauge("suspicious", "Sites and hosts that fail much more often than others", "place"))
        self.excluded = Table(
            gauge("excluded", "Sites and hosts that new workers avoid, and until when (epoch s)", "place")
        )

        self._log_lag_bytes = gauge("log_lag_bytes", "Bytes of day logs that are not read yet")
        self._log_lag_seconds = gauge("log_lag_seconds", "Since when the oldest of them wait")
        self._report_lag = gauge("report_lag_seconds", "Since when the WMS has not been told all that changed")
        self._log_events = counter("log_events", "Warnings and errors in the log, by their text", "level", "event")
        self._wms = histogram("wms_seconds", "Attempts of calls to the WMS", "call", "outcome")
        self._schedd = histogram("schedd_seconds", "Calls to the schedd", "call", "outcome")
        self.families.append(Family("ewms_tms_info", "gauge", "1, and which TMS it is", ("version",)))
        Info("ewms_tms", "The TMS", registry=registry).info({"version": version("ewms-htcondor")})
        ProcessCollector(registry=registry)
        self._told_all_at = trio.current_time()

    def log_lag(self, size: int, seconds: float) -> None:
        """How far the watchers are behind the day logs: in bytes, and since when (s)."""
        self._log_lag_bytes.set(size)
        self._log_lag_seconds.set(seconds)

    def told_all(self) -> None:
        """The WMS was just told all that had changed."""
        self._told_all_at = trio.current_time()

    def observe_wms(self, call: str, fault: type[Exception] | None, seconds: float) -> None:
        """One attempt of a call to the WMS."""
        self._wms.labels(_UUID.sub("UUID", call), _outcome(fault)).observe(seconds)

    def observe_schedd(self, call: str, fault: type[Exception] | None, seconds: float) -> None:
        """One call to the schedd."""
        self._schedd.labels(call, _outcome(fault)).observe(seconds)

    def count_log_event(self, level: str, event: str) -> None:
        """Something was logged; warnings and worse are counted."""
        if level not in ("warning", "error", "critical"):
            return
        if event not in self._events and len(self._events) >= _MAX_EVENTS:
            event = "(others)"
        self._events.add(event)
        self._log_events.labels(level, event).inc()

    def refresh_with(self, refresh: Callable[[], None]) -> None:
        """Call this before each reading."""
        self._refreshers.append(refresh)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        self._report_lag.set(trio.current_time() - self._told_all_at)
        for refresh in self._refreshers:
            refresh()
        return generate_latest(self._registry)


def _outcome(fault: type[Exception] | None) -> str:
    return "ok" if fault is None else fault.__name__
