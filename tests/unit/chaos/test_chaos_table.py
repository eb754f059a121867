"""Results are shown, kept and put into a page."""

import attrs
import pytest

from tests.chaos import memory, table
from tests.chaos.faults import kinds
from tests.chaos.kinds import Needs
from tests.chaos.table import Result

ALL = Needs.RABBITMQ | Needs.MOUNTS | Needs.HTCONDOR
RESULT = Result(
    ground="pool",
    broker="rabbitmq",
    seed=7,
    minutes=4,
    faults={"pilot-kill": 2, "wms-gone": 1},
    recoveries={"pilot-kill": 3.25},
    events_in=100,
    events_out=99,
    duplicates=2,
    interruptions=3,
    lost=1,
    taskforces=2,
    clusters=2,
    orphans=0,
    tokens=0,
    tms_memory_mb=80,
    seconds=300.0,
    notes={"no pilot": 1},
    problems=("TF-1: 1 events lost: c",),
)


def test_a_run_is_shown_with_what_is_wrong() -> None:
    shown = table.table(RESULT)
    assert "pilot-kill  2      3.2 s" in shown
    assert "3 faults; events: 100 in, 99 done, 2 duplicates (3 interruptions of pilots), 1 lost" in shown
    assert "not done: no pilot (1)" in shown
    assert shown.endswith("WRONG: TF-1: 1 events lost: c")


def test_what_is_kept_can_be_read_again() -> None:
    assert table.parse(table.dump(RESULT)) == RESULT
    with pytest.raises(ValueError, match="no result of a chaos run"):
        table.parse("{}")


def test_several_runs_are_one_table_with_their_sums() -> None:
    other = attrs.evolve(RESULT, ground="embedded", seed=8, faults={"pilot-kill": 1}, recoveries={"pilot-kill": 9.0})
    shown = table.document([RESULT, other])
    assert "| all |  | 8 | 4 | 200 | 198 | 6 | 4 | 2 | 4 | 4 | 0 | 0 | 2 |" in shown
    assert "| pilot-kill | 1 | 9.0 s | 2 | 3.2 s |" in shown
    assert "| wms-gone |  |  | 1 |  |" in shown


def test_memory_is_told_of_those_who_lived_long_enough_to_tell() -> None:
    long, short = (memory.Life("TMS", 1, minutes, (50.0,), (20,)) for minutes in (40.0, 4.0))
    told = [line for line in table.document([attrs.evolve(RESULT, lives=(long, short))]).splitlines() if "TMS" in line]
    assert told == ["| TMS | 1 | 40 | 50.0 | +0.0 | 20 |"]
    assert "MB, by eighths" not in table.document([attrs.evolve(RESULT, lives=(short,))])


def test_lives_are_kept() -> None:
    result = attrs.evolve(RESULT, lives=(memory.Life("pilots", 4, 40.0, (30.0, 30.5), (20, 21)),))
    assert table.parse(table.dump(result)) == result


def test_the_table_goes_between_its_marks_and_nowhere_else() -> None:
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.insert(page, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="has no <!-- chaos: begin -->"):
        table.insert("before\nafter\n", "new")


def test_each_ground_has_the_kinds_that_are_possible_there() -> None:
    everywhere = set(kinds(Needs.EMBEDDED))
    assert {"pilot-kill", "tms-kill", "schedd-freeze", "wms-lies", "log-torn", "order-start"} <= everywhere
    assert everywhere < set(kinds(Needs.EMBEDDED | Needs.RABBITMQ | Needs.MOUNTS))
    assert {"schedd-kill", "startd-restart", "broker-kill", "disk-full"} <= set(kinds(ALL))


def test_only_some_kinds() -> None:
    assert list(kinds(ALL, ["wms-gone", "pilot-kill"])) == ["wms-gone", "pilot-kill"]
    with pytest.raises(ValueError, match="not possible here: broker-kill"):
        kinds(Needs.EMBEDDED, ["broker-kill"])
