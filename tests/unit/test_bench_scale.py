"""The day of many workers is the same each time, its computed costs are true, and docs/scale.md shows it as it is."""

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import daylog
import pytest
import scale
from scale import Plan, count, day, loads, publish, worst
from unit_costs import COSTS, LIMITS

from ewms.tms.board import TaskforceReport
from ewms.tms.report import MAX_TASKFORCES, size_of

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
WORKERS = 300


def logged(updates: int) -> tuple[Counter[bytes], Counter[bytes], bytes]:
    """Bytes and numbers of a taskforce's log events by their kind, and all of its log."""
    sizes: Counter[bytes] = Counter()
    numbers: Counter[bytes] = Counter()
    events = list(daylog.lines(daylog.Day(taskforces=1, workers=WORKERS, updates=updates)))
    for event in events:
        sizes[event[:3]] += len(event)
        numbers[event[:3]] += 1
    return sizes, numbers, b"".join(events)


def test_what_a_worker_writes_into_the_log_is_what_the_table_says() -> None:
    sizes, numbers, _ = logged(0)
    many_sizes, many_numbers, log = logged(9)
    runs = numbers[b"001"]
    found = {
        "life_bytes": sum(sizes.values()) / runs,
        "life_lines": sum(numbers.values()) / runs,
        "update_bytes": (many_sizes[b"008"] - sizes[b"008"]) / 9 / runs,
        "update_lines": (many_numbers[b"008"] - numbers[b"008"]) / 9 / runs,
        "size_bytes": many_sizes[b"006"] / many_numbers[b"006"],
    }
    assert found == {name: pytest.approx(COSTS[name].value, rel=0.01) for name in found}
    # Libraries differ a little.
    assert len(gzip.compress(log, 6)) / len(log) == pytest.approx(COSTS["packed"].value, rel=0.1)


def test_what_a_batch_of_statuses_is_is_what_the_table_says() -> None:
    statuses = {
        "IDLE": {"null": 120},
        "RUNNING": {"Tasking": 360, "AwaitingFirstMessage": 10},
        "COMPLETED": {"Done": 10},
    }
    errors = {"task failed (exit code 137): Killed": 4}
    uuid = "TF-6b0244e1-8d41a391-28ee3db8-3afc62c4"
    assert size_of(TaskforceReport(uuid, 7, statuses, errors, None)) == COSTS["entry_bytes"].value
    assert COSTS["batch"].value == MAX_TASKFORCES


def test_the_day_is_the_same_each_time_and_holds_together() -> None:
    plan = Plan(workers=5_000, events=5e7)
    minutes = list(day(plan))
    assert minutes == list(day(plan))
    assert minutes != list(day(plan, seed=2))
    assert len(minutes) == scale.MINUTES
    running = [minute.running for minute in minutes]
    assert max(running) == plan.workers
    assert running[scale.SITE_LOST] == pytest.approx(plan.workers * (1 - scale.SITE_SHARE), rel=0.01)
    assert running[scale.SITE_WHOLE] == plan.workers
    totals = count(plan)
    # A worker's hours are what they are said to be: the pool is filled once, lost in part, and else replaced.
    expected = sum(running) / 60 / plan.worker_hours + plan.workers * (1 + scale.SITE_SHARE)
    assert totals.lives == pytest.approx(expected, rel=0.05)
    assert totals.messages == plan.events * 8


def test_more_workers_load_nobody_less_and_more_carriers_nobody_more() -> None:
    small, large = Plan().of_size(10_000), Plan()
    assert (small.events, large.of_size(10_000)) == (1e8, small)
    for before, after in zip(loads(small), loads(large), strict=True):
        assert before.share <= after.share
    wider = attrs.evolve(large, access_points=4, broker_nodes=4, queues=4)
    for before, after in zip(loads(large), loads(wider), strict=True):
        assert after.share <= before.share or before.name == "requests to the WMS"  # each TMS polls


def test_what_there_is_is_counted() -> None:
    assert {load.name for load in loads(Plan())} == LIMITS.keys()
    assert worst(Plan()).share == max(load.share for load in loads(Plan()))


def test_the_page_shows_the_tables_as_they_are() -> None:
    text = PAGE.read_text()
    assert publish(text, Plan()) == text, "python tests/bench/scale.py --docs docs/scale.md"


def test_the_command_of_the_page() -> None:
    program = Path(scale.__file__)
    command = [sys.executable, str(program), "--workers", "20000", "--events", "2e8", "--access-points", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "a day of 20,000 workers and 200,000,000 events" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("The fullest is: ")
