import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from ewms.tms.board import TaskforceReport
from ewms.tms.report import MAX_BYTES, MAX_TASKFORCES, first_batch, size_of


def report(uuid: str, error: str = "") -> TaskforceReport:
    return TaskforceReport(uuid, 1, {"IDLE": {"null": 3}}, {error: 1} if error else {}, None)


def body(batch: tuple[TaskforceReport, ...]) -> bytes:
    return json.dumps(
        {
            "compound_statuses_by_taskforce": {each.uuid: each.compound_statuses for each in batch},
            "top_task_errors_by_taskforce": {each.uuid: each.top_task_errors for each in batch},
        }
    ).encode()


@given(st.lists(st.text(max_size=40), max_size=30))
def test_the_size_of_a_body_is_not_underestimated(errors: list[str]) -> None:
    batch = tuple(report(f"TF-{number}", error) for number, error in enumerate(errors))
    assert len(body(batch)) <= sum(map(size_of, batch)) + 100


def test_a_batch_is_bounded_in_bytes_and_in_number() -> None:
    large = [report(f"TF-{number}", "x" * (MAX_BYTES // 10)) for number in range(30)]
    batch = first_batch(large)
    assert batch == tuple(large[: len(batch)])
    assert 5 < len(batch) < 10
    assert len(body(batch)) <= MAX_BYTES
    small = [report(f"TF-{number}") for number in range(MAX_TASKFORCES + 5)]
    assert first_batch(small) == tuple(small[:MAX_TASKFORCES])


def test_what_is_too_large_for_any_batch_goes_alone() -> None:
    huge = report("TF-1", "x" * 2 * MAX_BYTES)
    assert first_batch([huge, report("TF-2")]) == (huge,)
    assert first_batch([report("TF-2"), huge]) == (report("TF-2"),)
    assert first_batch([]) == ()


def test_no_more_is_looked_at_than_one_call_carries() -> None:
    looked_at = 0

    def reports() -> Iterator[TaskforceReport]:
        nonlocal looked_at
        for looked_at in range(1, 10 * MAX_TASKFORCES):
            yield report(f"TF-{looked_at}")

    assert len(first_batch(reports())) == MAX_TASKFORCES
    assert looked_at == MAX_TASKFORCES + 1
