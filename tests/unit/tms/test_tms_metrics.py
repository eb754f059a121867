import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from ewms.tms.metrics import Metrics
from ewms.wms.errors import WMSUnavailable


def samples(metrics: Metrics) -> dict[str, float]:
    """`name{label values}` → value, as a Prometheus reads them."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found[f"{sample.name}{{{','.join(sample.labels.values())}}}"] = sample.value
    return found


async def test_every_series_is_there_from_the_start() -> None:
    found = samples(Metrics())
    for name in ("orders_total{start}", "orders_total{stop}", "submits_total{refused}", "removes_total{removed}"):
        assert found[f"ewms_tms_{name}"] == 0
    assert found["ewms_tms_log_lag_bytes{}"] == 0
    assert found["process_open_fds{}"] > 0
    assert any(name.startswith("ewms_tms_info{") for name in found)


async def test_counting_and_tables() -> None:
    metrics = Metrics()
    metrics.orders.inc("start")
    metrics.orders.inc("start", 2)
    metrics.jobs.replace({"RUNNING": 5, "HELD": 1})
    assert samples(metrics)["ewms_tms_orders_total{start}"] == 3
    metrics.jobs.replace({"RUNNING": 4})
    found = samples(metrics)
    assert found["ewms_tms_jobs{RUNNING}"] == 4
    assert "ewms_tms_jobs{HELD}" not in found


async def test_a_table_can_be_filled_when_it_is_read() -> None:
    metrics = Metrics()
    metrics.refresh_with(lambda: metrics.taskforces.replace({"open": 7}))
    assert samples(metrics)["ewms_tms_taskforces{open}"] == 7


async def test_the_report_lag_grows_until_all_is_told(autojump_clock: MockClock) -> None:
    metrics = Metrics()
    await trio.sleep(100)
    assert samples(metrics)["ewms_tms_report_lag_seconds{}"] == pytest.approx(100)
    metrics.told_all()
    assert samples(metrics)["ewms_tms_report_lag_seconds{}"] == 0


async def test_no_uuid_becomes_a_label() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.observe_wms(f"POST /tms/condor-rm/taskforces/TF-{number}/failed", WMSUnavailable, 0.2)
        metrics.observe_wms(f"GET /taskforces/TF-{number}", None, 0.2)
    metrics.observe_wms("GET /tms/pending-starter/taskforces", None, 0.2)
    found = samples(metrics)
    counts = {name: value for name, value in found.items() if name.startswith("ewms_tms_wms_seconds_count")}
    assert counts == {
        "ewms_tms_wms_seconds_count{POST /tms/condor-rm/taskforces/UUID/failed,WMSUnavailable}": 50,
        "ewms_tms_wms_seconds_count{GET /taskforces/UUID,ok}": 50,
        "ewms_tms_wms_seconds_count{GET /tms/pending-starter/taskforces,ok}": 1,
    }


async def test_warnings_and_errors_are_counted_by_their_text_within_bounds() -> None:
    metrics = Metrics()
    metrics.count_log_event("info", "all is well")
    for _ in range(3):
        metrics.count_log_event("error", "start order failed")
    for number in range(400):
        metrics.count_log_event("warning", f"a text that is not constant {number}")
    found = {name: value for name, value in samples(metrics).items() if "log_events" in name}
    assert found["ewms_tms_log_events_total{start order failed,error}"] == 3
    assert found["ewms_tms_log_events_total{(others),warning}"] == 101
    assert len(found) == 301
