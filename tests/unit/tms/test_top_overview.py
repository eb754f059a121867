"""All taskforces at a glance: who comes first, and what is counted."""

import pytest

from ewms.tms.board import TaskforceReport
from ewms.tms.overview import Overview, Row, blocked, dump, load, overview, row_of


def report(uuid: str = "TF-1", **changes: object) -> TaskforceReport:
    fields = {"cluster_id": 7, "compound_statuses": {}, "top_task_errors": {}, "completed_at": None}
    return TaskforceReport(uuid, **(fields | changes))  # type: ignore[arg-type]


def test_a_row_counts_workers_by_status_and_names_the_most_common_hold() -> None:
    statuses = {
        "RUNNING": {"Tasking": 5, "null": 2, "AwaitingFirstMessage": 1},
        "IDLE": {"null": 3},
        "HELD: no memory": {"null": 1},
        "HELD: no file: x": {"null": 2, "Done": 1},
    }
    row = row_of("open", report(compound_statuses=statuses, top_task_errors={"bad": 2, "worse": 1}))
    assert row.workers == {"RUNNING": 8, "IDLE": 3, "HELD": 4}
    assert (row.tasking, row.bad, row.trouble) == (5, 7, "held: no file: x")
    assert row.is_in_trouble


def test_a_failed_factory_is_trouble_without_any_bad_worker() -> None:
    row = row_of("open", report(materialization_failure="cannot write the spool"))
    assert row.is_in_trouble
    assert row.trouble == "no further workers: cannot write the spool"


def test_what_has_ended_is_no_trouble_any_more() -> None:
    statuses = {"COMPLETED": {"Done": 2}, "HELD: x": {"null": 1}}
    row = row_of("open", report(completed_at=1, compound_statuses=statuses, top_task_errors={"x": 1}))
    assert row.has_ended
    assert not row.is_in_trouble


def test_trouble_first_then_the_busiest_then_what_has_ended() -> None:
    rows = [
        Row("TF-ended", "ending", workers={"COMPLETED": 99}, errors={"x": 9}, has_ended=True),
        blocked(Row("TF-refused", "refused", has_ended=True), "the WMS does not take its end"),
        Row("TF-waiting", "starting"),
        Row("TF-busy", "open", workers={"RUNNING": 500}),
        Row("TF-quiet", "open", workers={"RUNNING": 5}),
        Row("TF-error", "open", workers={"RUNNING": 5}, errors={"x": 1}),
        Row("TF-held", "open", workers={"HELD": 3}, trouble="held: x"),
    ]
    whole = overview(rows)
    assert [row.uuid.removeprefix("TF-") for row in whole.rows] == [
        "refused",
        "held",
        "error",
        "busy",
        "quiet",
        "waiting",
        "ended",
    ]
    assert whole.stages == {"open": 4, "starting": 1, "ending": 1, "refused": 1}
    assert whole.in_trouble == 3
    assert whole.workers == {"RUNNING": 510, "HELD": 3}
    assert whole.errors == {"x": 1}


def test_thousands_are_counted_and_some_are_shown() -> None:
    whole = overview((Row(f"TF-{n}", "open", workers={"RUNNING": n}) for n in range(5000)), limit=10)
    assert whole.taskforces == 5000
    assert [row.uuid for row in whole.rows] == [f"TF-{n}" for n in range(4999, 4989, -1)]


def test_errors_of_all_taskforces_are_grouped() -> None:
    rows = [Row(f"TF-{n}", "open", errors={f"cannot read /data/{n}.zst": 2, "other": 1}) for n in range(5)]
    assert overview(rows).errors == {"cannot read /data/0.zst": 10, "other": 5}


def test_there_and_back_as_json() -> None:
    whole = overview(
        [Row("TF-1", "open", 7, {"RUNNING": 2}, 1, {"x": 1}, "held: y"), blocked(Row("TF-2", "refused"), "z")]
    )
    assert load(dump(whole)) == whole
    assert load(dump(Overview())) == Overview()


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"rows": [{"uuid": 1}]}', '{"stages": 5}'])
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(text)
