"""What the pages of a TMS say becomes a snapshot."""

import pytest

from ewms.tms.metrics import Metrics
from ewms.tms.overview import Overview, Row, dump, overview
from ewms.tms.top.model import Calls, Site
from ewms.tms.top.scrape import snapshot
from ewms.wms.errors import WMSUnavailable


async def test_every_number_of_the_real_metrics_is_found() -> None:
    metrics = Metrics()
    metrics.orders.inc("start", 3)
    metrics.orders.inc("stop")
    metrics.submits.inc("submitted", 2)
    metrics.submits.inc("refused")
    metrics.removes.inc("removed", 4)
    metrics.files.inc("failed")
    metrics.site_runs.replace({"GOOD": 40, "HOLE": 20})
    metrics.site_failures.replace({"GOOD": 0, "HOLE": 19})
    metrics.suspicious.replace({"site HOLE": 0.95})
    metrics.excluded.replace({"site HOLE": 2e9})
    metrics.stuck.replace({"watch": 950})
    metrics.history_missing.set(1)
    metrics.log_lag(4096, 12.5)
    metrics.observe_wms("GET /taskforces/TF-1", None, 0.5)
    metrics.observe_wms("GET /taskforces/TF-1", WMSUnavailable, 1.5)
    metrics.observe_schedd("query", None, 0.25)
    metrics.count_log_event("warning", "audit skipped, the schedd gives no answer")
    whole = overview([Row("TF-1", "open", 7, {"RUNNING": 2})])
    found = snapshot(metrics.text().decode(), dump(whole), at=17.0)
    assert found.at == 17.0
    assert found.title.startswith("TMS ")
    assert found.started_at
    assert found.memory
    assert found.overview == whole
    assert found.counters == {
        "start orders": 3,
        "submitted": 2,
        "adopted": 0,
        "refused": 1,
        "stop orders": 1,
        "removed": 4,
        "archived": 0,
        "file faults": 1,
    }
    assert found.calls == {"WMS": Calls(2, 1, 2.0), "schedd": Calls(1, 0, 0.25)}
    assert found.sites == (Site("HOLE", 20, 19), Site("GOOD", 40, 0))
    assert found.suspicious == ("site HOLE",)
    assert found.excluded == ("site HOLE",)
    assert found.stuck == {"watch": 950}
    assert (found.log_lag_bytes, found.log_lag_seconds) == (4096, 12.5)
    assert found.report_lag_seconds is not None
    assert found.warnings == {"audit skipped, the schedd gives no answer": 1}
    assert found.troubles == ("the schedd's history cannot be asked",)


async def test_a_tms_that_has_just_started() -> None:
    found = snapshot(Metrics().text().decode(), dump(Overview()), at=0)
    assert (found.overview.taskforces, found.sites, found.stuck, found.troubles) == (0, (), {}, ())


@pytest.mark.parametrize("text", ["", "go_info 1\n", "<html>not metrics</html>"])
def test_other_servers_are_no_tms(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        snapshot(text, dump(Overview()), at=0)
