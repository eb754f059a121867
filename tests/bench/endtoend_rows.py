"""A batch of short tasks on a real pool: through EWMS, as plain HTCondor jobs, as bundles of a hundred tasks.

2,000 tasks; `EWMS_BENCH_TASKS=500 nox -s bench -- --group endtoend --runs 1` is a shorter run.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import structlog
from endtoend_runs import TASK_S, Case, Ways, lost_s
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
    return _calm(ways, case) if setup.quick else [*_calm(ways, case), _failing(ways, case), *_killed(ways, case)]


def _calm(ways: Ways, case: Case) -> list[Row]:
    works: dict[str, Contender] = {
        OURS: partial(ways.ewms, case),
        PLAIN: partial(ways.plain_jobs, case),
        BUNDLES: partial(ways.bundles, case),
    }
    first, second = _told_twice(works, lambda makespan: 1000 * (makespan * case.slots / case.tasks - TASK_S))
    return [
        _makespan(f"{case.tasks:,} tasks of {TASK_S} s", first),
        Row("of it overhead for each task", "ms of a slot", second, less_is_better=True),
    ]


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
    works: dict[str, Contender] = {PLAIN: partial(ways.plain_jobs, case), BUNDLES: partial(ways.bundles, case)}
    first, second = _told_twice(works, lambda _makespan: lost_s(ways.log))
    return [
        _makespan("a worker is killed at half time", {OURS: partial(ways.ewms, case), **first}),
        # A pilot has one task in work, and nothing else is run again.
        Row("work that it loses", "s of a slot", {f"{OURS}, at most": lambda: TASK_S, **second}, less_is_better=True),
    ]


def _makespan(name: str, contenders: Mapping[str, Contender]) -> Row:
    return Row(f"{name}: makespan", "s", contenders, less_is_better=True)


def _told_twice(
    works: Mapping[str, Contender], also: Callable[[float], float]
) -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Contenders, and others that give, for each of their runs in turn, what `also` made of its figure."""
    kept: dict[str, deque[float]] = {name: deque() for name in works}

    def run(name: str) -> float:
        figure = works[name]()
        kept[name].append(also(figure))
        return figure

    return {name: partial(run, name) for name in works}, {name: kept[name].popleft for name in works}
