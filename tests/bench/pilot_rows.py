"""Pilots beside the container runtime alone, beside the PyPI package `ewms-pilot`, and what they cost by themselves.

`EWMS_BENCH_EVENTS=1000000 nox -s bench -- --group pilotcost` is the long run (100,000 events by default).
"""

import os
from collections.abc import Callable
from functools import cache, partial

from figures import Figures
from launcher_cost import SLOTS as SUPERVISED
from measure import CannotRun, Contender, Goal, Row, Setup, Skipped
from pilot_machine import PilotMachine, open_pilot_machine
from pilot_runs import Runs

from ewms.testing.held import held
from ewms.testing.pool import PoolUnavailable

MANY = int(os.environ.get("EWMS_BENCH_EVENTS", "100000"))
SLOTS = (1, 2, 4, 8)
FAST = {1: 100.0, 2: None, 4: 200.0}
"""Slots → events/s that are wanted of directory images."""
SECOND = "sh -c 'sleep 1; cp {{INFILE}} {{OUTFILE}}'"
SECOND_ALONE = "sh -c 'sleep 1; cp {in} {out}'"

BUBBLEWRAP = {"_EWMS_PILOT_CONTAINER_PLATFORM": "bwrap"}

XARGS = "bare apptainer run, xargs -P N"
PYPI = "ewms-pilot 1.0.5 (PyPI)"
IDEAL = "N tasks a second"
CLIENT = "aiormq alone, asyncio"


def throughput(setup: Setup) -> list[Row]:
    """Events a second, with Apptainer and default settings."""
    runs = _runs(setup)
    if setup.quick:
        return [_copies(runs, 8, 1), _seconds(runs, 1, 4), _fast_copies(runs, 8, 4)]
    return [
        *(_copies(runs, 100, slots) for slots in SLOTS),
        *(_seconds(runs, 6, slots) for slots in (1, 4)),
        *(_fast_copies(runs, 100, slots) for slots in FAST),
    ]


def cost(setup: Setup) -> list[Row]:
    """What a pilot needs for itself: its containers do nothing, except where the first task is waited for."""
    runs = _runs(setup)
    count, many = (50, 200) if setup.quick else (2_000, MANY)
    rows: list[Row] = []
    for slots in (1, 4):
        ours = Figures(partial(_each, runs.own_cost, count, slots))
        alone = Figures(partial(_each, runs.client_alone, count, slots))
        rows += [
            Row(
                f"own CPU for an event, {_at_a_time(slots)}",
                "ms",
                {"ours": ours["cpu_ms"], CLIENT: alone["cpu_ms"]},
                [Goal(3)],
                less_is_better=True,
            ),
            Row(
                f"events whose container does nothing, {_at_a_time(slots)}",
                "events/s",
                {"ours": ours["rate"], CLIENT: alone["rate"]},
            ),
        ]

    @cache  # one run of it is long enough
    def long_run() -> dict[str, float]:
        return runs.own_cost(many, 4)

    starts = Figures(partial(runs.launcher_cost, 10 if setup.quick else 200))
    return [
        *rows,
        Row(f"memory after {many:,} events, peak", "MB", {"ours": lambda: long_run()["peak_mb"]}, [Goal(45)], True),
        Row("of it grown since event 1,000", "MB", {"ours": lambda: _growth(long_run())}, [Goal(1)], True),
        Row(
            f"memory besides: the launcher and its supervisors, {_at_a_time(SUPERVISED)}",
            "MB",
            {"ours": starts["launcher_mb"]},
            less_is_better=True,
        ),
        Row(
            "from the start to the end of a container that does nothing, bubblewrap",
            "ms",
            {"ours, through the launcher": starts["launcher_ms"], "bwrap alone, the same words": starts["alone_ms"]},
            less_is_better=True,
        ),
        Row(
            "exec to first task, directory image",
            "s",
            {
                "ours, Apptainer": runs.first_task_s,
                "ours, bubblewrap": partial(runs.first_task_s, **BUBBLEWRAP),
                PYPI: _pypi(runs.machine, runs.pypi_first_task_s),
            },
            [Goal(0.7)],
            less_is_better=True,
        ),
    ]


def _each(cost: Callable[[int, int], dict[str, float]], count: int, slots: int) -> dict[str, float]:
    figures = cost(count, slots)
    return {"cpu_ms": 1000 * figures["cpu_s"] / count, "rate": figures["rate"]}


def _growth(figures: dict[str, float]) -> float:
    return figures["peak_mb"] - (figures["settled_mb"] or figures["peak_mb"])


def _copies(runs: Runs, count: int, slots: int) -> Row:
    # The package collapses with concurrency: fewer events then, or a run takes minutes.
    few = min(count, 30 if slots == 1 else slots + 6)
    return Row(
        f"cp, {_at_a_time(slots)}",
        "events/s",
        {
            "ours": partial(runs.pilot_rate, count, slots),
            XARGS: partial(runs.xargs_rate, count, slots),
            PYPI: _pypi(runs.machine, partial(runs.pypi_rate, few, slots)),
        },
        [Goal(0.95, XARGS)],
    )


def _fast_copies(runs: Runs, count: int, slots: int) -> Row:
    """A directory image, and a launcher that costs little beside Apptainer."""
    wanted = FAST[slots]
    return Row(
        f"cp, bubblewrap, {_at_a_time(slots)}",
        "events/s",
        {
            "ours, bubblewrap": partial(runs.pilot_rate, 4 * count, slots, **BUBBLEWRAP),
            XARGS: partial(runs.xargs_rate, count, slots),
        },
        [*([Goal(wanted)] if wanted else []), Goal(10, XARGS)],
    )


def _seconds(runs: Runs, seconds: int, slots: int) -> Row:
    count = slots * (seconds + 1)
    return Row(
        f"tasks of 1 s, {_at_a_time(slots)}",
        "events/s",
        {
            "ours, Apptainer": partial(runs.pilot_rate, count, slots, SECOND),
            "ours, bubblewrap": partial(runs.pilot_rate, count, slots, SECOND, **BUBBLEWRAP),
            IDEAL: lambda: float(slots),
            XARGS: partial(runs.xargs_rate, count, slots, SECOND_ALONE),
        },
        [Goal(0.98, IDEAL)],
    )


def _at_a_time(slots: int) -> str:
    return f"{slots} at a time"


def _pypi(machine: PilotMachine, contender: Contender) -> Contender | Skipped:
    return Skipped(machine.why_no_pypi) if machine.pypi is None else contender


def _runs(setup: Setup) -> Runs:
    try:
        machine = setup.stack.enter_context(held(partial(open_pilot_machine, setup.directory, progress=setup.say)))
    except PoolUnavailable as error:
        raise CannotRun(str(error)) from error
    return Runs(machine)
