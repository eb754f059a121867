"""A batch of short tasks on a real pool: through EWMS, as plain HTCondor jobs, as bundles of a hundred tasks.

2,000 tasks; `EWMS_BENCH_TASKS=500 nox -s bench -- --group endtoend --runs 1` is a shorter run.
"""

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import structlog
from endtoend_runs import TASK_S, Case, Ways, lost_s
from figures import Figures
from measure import CannotRun, Contender, Row, Setup

from ewms.testing.held import held
from ewms.testing.pool import PoolUnavailable, open_pool

TASKS = int(os.environ.get("EWMS_BENCH_TASKS", "2000"))
SLOTS = 8

OURS, PLAIN, BUNDLES = "EWMS", "a plain job each", "jobs of 100 tasks each"
LISTENING: dict[str, Any] = {"EWMS_PILOT_STOP_LISTENING_ON_TASK_ERROR": "false"}


def rows(setup: Setup) -> list[Row]:
    """The rows of this group."""
    # The stand-in would tell each request.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        pool = setup.stack.enter_context(
            held(partial(open_pool, setup.directory / "pool", progress=setup.say, n_cpus=SLOTS))
        )
    except PoolUnavailable as error:
        raise CannotRun(str(error)) from error
    ways = Ways(pool, setup.directory)
    case = Case(tasks=16, slots=SLOTS, bundle=2) if setup.quick else Case(tasks=TASKS, slots=SLOTS, bundle=100)
    return [*_calm(ways, case), _failing(ways, case), *_killed(ways, case)]


def _calm(ways: Ways, case: Case) -> list[Row]:
    works = {
        OURS: Figures(partial(_with_overhead, case, partial(ways.ewms, case))),
        PLAIN: Figures(partial(_with_overhead, case, partial(ways.plain_jobs, case))),
        BUNDLES: Figures(partial(_with_overhead, case, partial(ways.bundles, case))),
    }
    return [
        _makespan(f"{case.tasks:,} tasks of {TASK_S} s", {name: each["makespan_s"] for name, each in works.items()}),
        Row(
            "of it overhead for each task",
            "ms of a slot",
            {name: each["overhead_ms"] for name, each in works.items()},
            less_is_better=True,
        ),
    ]


def _with_overhead(case: Case, work: Contender) -> dict[str, float]:
    makespan = work()
    return {"makespan_s": makespan, "overhead_ms": 1000 * (makespan * case.slots / case.tasks - TASK_S)}


def _failing(ways: Ways, calm: Case) -> Row:
    case = attrs.evolve(calm, fails=True)
    # Each bad event takes one of the workers that leave: the order has as many in reserve.
    reserve = case.tasks - case.results + case.slots
    return _makespan(
        "one task in twenty fails",
        {
            OURS: partial(ways.ewms, case, **LISTENING),
            f"{OURS}, leaving suspect machines (default)": partial(ways.ewms, case, workers=case.slots + reserve),
            PLAIN: partial(ways.plain_jobs, case),
            BUNDLES: partial(ways.bundles, case),
        },
    )


def _killed(ways: Ways, calm: Case) -> list[Row]:
    case = attrs.evolve(calm, kills=True)
    works = {
        PLAIN: Figures(partial(_with_loss, ways, partial(ways.plain_jobs, case))),
        BUNDLES: Figures(partial(_with_loss, ways, partial(ways.bundles, case))),
    }
    makespans = {name: each["makespan_s"] for name, each in works.items()}
    losses = {name: each["lost_s"] for name, each in works.items()}
    return [
        _makespan("a worker is killed at half time", {OURS: partial(ways.ewms, case), **makespans}),
        # A pilot has one task in work, and nothing else is run again.
        Row("work that it loses", "s of a slot", {f"{OURS}, at most": lambda: TASK_S, **losses}, less_is_better=True),
    ]


def _with_loss(ways: Ways, work: Contender) -> dict[str, float]:
    return {"makespan_s": work(), "lost_s": lost_s(ways.log)}


def _makespan(name: str, contenders: Mapping[str, Contender]) -> Row:
    return Row(f"{name}: makespan", "s", contenders, less_is_better=True)
