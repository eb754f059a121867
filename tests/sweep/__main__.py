"""`nox -s sweep`: end the TMS, its schedd helpers, and both, at every step; lose every answer of the WMS; look.

Examples:
    nox -s sweep                                  at least 250 kills on the embedded schedd, 40 on the real pool
    nox -s sweep -- --kills 2000 --pool 0         all of the embedded schedd's: more than half an hour on two idle cores
    nox -s sweep -- --kills 30 --pool 3           what CI does
    nox -s sweep -- --only 'embedded life@schedd:submit:acted#1@both'
    nox -s sweep -- --list                        the cases' names, of the embedded schedd
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms import logs
from ewms.testing.pool import PoolUnavailable
from tests.sweep.cases import SCENARIOS, Case, cases_of, enough, parse_case
from tests.sweep.grounds import Ground, Say, open_embedded, open_real
from tests.sweep.lane import Lane, open_lane
from tests.sweep.table import Result, table
from tests.worked import in_new_directory

OpenGround = Callable[[Path, int, Say], AbstractAsyncContextManager[Ground]]

_GROUNDS: Final = ("embedded", "pool")
_EMBEDDED_KILLS: Final = 250
_POOL_KILLS: Final = 40
_PROGRESS_S: Final = 10.0
_MISSED_AT_MOST: Final = 0.1
"""Part of the cases whose step may not come: some depend on time."""


def say(text: str) -> None:
    """Progress, for people."""
    print(f"  … {text}", file=sys.stderr, flush=True)


@attrs.define
class Sweep:
    """The cases of one ground."""

    name: str
    open_ground: OpenGround
    lanes: int
    kills: int
    """At least so many, with what lies between them; where there are not so many steps, as many as there are."""
    only: Sequence[Case]
    work_dir: Path
    keep: bool
    results: list[Result] = attrs.field(factory=list)
    planned: list[Case] = attrs.field(factory=list)
    promised: int = 0
    """Kills without which it does not count."""

    async def run(self, *, only_list: bool = False) -> None:
        """Record the clean runs, then do the harms; some lanes side by side."""
        self.work_dir.mkdir()
        self.work_dir.chmod(0o755)
        async with AsyncExitStack() as stack:
            ground = await stack.enter_async_context(self.open_ground(self.work_dir, self.lanes, say))
            lanes = [
                await stack.enter_async_context(open_lane(ground, number, self.work_dir))
                for number in range(self.lanes)
            ]
            self.planned = list(self.only) or await self._record(lanes)
            if only_list:
                print("\n".join(case.name for case in self.planned))
                return
            chosen = self.only or self._choose()
            say(f"{self.name}: {len(chosen)} of {len(self.planned)} cases")
            await self._run_all(lanes, chosen)

    def _choose(self) -> list[Case]:
        chosen = enough(self.planned, ceil(self.kills / (1 - _MISSED_AT_MOST)))
        self.promised = min(self.kills, int(sum(case.kills for case in chosen) * (1 - _MISSED_AT_MOST)))
        return chosen

    async def _record(self, lanes: Sequence[Lane]) -> list[Case]:
        say(f"{self.name}: recording the steps of {len(SCENARIOS)} clean runs")
        clean = {
            result.case.scenario: result for result in await self._run_all(lanes, [Case(each) for each in SCENARIOS])
        }
        return [case for scenario in SCENARIOS for case in cases_of(scenario, clean[scenario].seen)]

    async def _run_all(self, lanes: Sequence[Lane], cases: Sequence[Case]) -> list[Result]:
        todo = iter(cases)
        done: list[Result] = []

        async def work(lane: Lane) -> None:
            for case in todo:
                result = await lane.run(case)
                if not result.is_reached and not result.problems:
                    result = await lane.run(case)
                done.append(result)
                self.results.append(result)
                self._tell(result, lane)

        async def progress() -> None:
            began = trio.current_time()
            while True:
                await trio.sleep(_PROGRESS_S)
                wrong = sum(bool(each.problems) for each in done)
                seconds = trio.current_time() - began
                say(f"{self.name}: {len(done)} of {len(cases)} cases, {wrong} wrong ({seconds:.0f} s)")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(progress)
            async with trio.open_nursery() as workers:
                for lane in lanes:
                    workers.start_soon(work, lane)
            nursery.cancel_scope.cancel()
        return done

    def _tell(self, result: Result, lane: Lane) -> None:
        diary = self.work_dir / f"diary-{len(self.results)}.txt"
        if result.problems or self.keep:
            diary.write_text("\n".join([result.case.name, *result.problems, "", *result.diary, ""]))
        if not result.problems:
            return
        print(f"WRONG {self.name} {result.case.name}  ({lane.log}, {diary})", flush=True)
        for problem in result.problems:
            print(f"      {problem}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s sweep --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=_EMBEDDED_KILLS, help="at least so many on the embedded schedd (%(default)s)"
    )
    parser.add_argument(
        "--pool",
        type=int,
        help=f"the same for the real pool ({_POOL_KILLS}; without this option it may be unavailable)",
    )
    parser.add_argument("--lanes", type=int, default=6, help="cases side by side (%(default)s)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CASE", help="'GROUND NAME', as a failure names it"
    )
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    parser.add_argument("--keep", action="store_true", help="keep logs and job directories")
    arguments = parser.parse_args()
    try:
        arguments.only = [_parse_only(name) for name in arguments.only]
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _parse_only(name: str) -> tuple[str, Case]:
    ground, _, case = name.partition(" ")
    if ground not in _GROUNDS:
        raise ValueError(f"{name}: begin with {' or '.join(_GROUNDS)}")
    return ground, parse_case(case)


def _sweeps(arguments: argparse.Namespace, work_dir: Path) -> list[Sweep]:
    wheel = os.environ.get("EWMS_TEST_WHEEL")
    real = partial(open_real, wheel=Path(wheel) if wheel else None)
    grounds: list[tuple[str, OpenGround, int]] = [
        ("embedded", open_embedded, arguments.kills),
        ("pool", real, 0 if arguments.list else _POOL_KILLS if arguments.pool is None else arguments.pool),
    ]
    only = {ground: [case for place, case in arguments.only if place == ground] for ground in _GROUNDS}
    return [
        Sweep(
            name,
            open_ground,
            min(arguments.lanes, max(1, len(only[name]) or kills)),
            kills,
            only[name],
            work_dir / name,
            arguments.keep,
        )
        for name, open_ground, kills in grounds
        if (only[name] if arguments.only else kills)
    ]


def _conclude(sweep: Sweep) -> int:
    """Say what to run again; the exit status."""
    wrong = [result for result in sweep.results if result.problems]
    for result in wrong:
        print(f"again: nox -s sweep -- --only '{sweep.name} {result.case.name}'")
    missed = sum(not result.is_reached for result in sweep.results)
    if missed > max(1, _MISSED_AT_MOST * len(sweep.results)):
        print(f"{missed} cases never came to their step: the clean runs are not like the others")
        return 1
    kills = sum(result.kills for result in sweep.results)
    if kills < sweep.promised:
        print(f"{kills} kills, where {sweep.promised} are asked for: too many cases never came to theirs")
        return 1
    return 1 if wrong else 0


def main() -> int:
    """The exit status: 0 only when every case ended right."""
    arguments = _parse()
    logs.configure("CRITICAL", "CRITICAL")
    return in_new_directory("ewms-sweep-", lambda directory: _run(arguments, directory), keep=arguments.keep)


def _run(arguments: argparse.Namespace, work_dir: Path) -> int:
    status = 0
    for sweep in _sweeps(arguments, work_dir):
        try:
            trio.run(partial(sweep.run, only_list=arguments.list))
        except PoolUnavailable as error:
            print(f"no real pool here, its part is left out: {error}")
            status = status if arguments.pool is None and not arguments.only else 2
            continue
        if arguments.list:
            continue
        print(f"\n{sweep.name}\n{table(sweep.results)}\n")
        status = max(status, _conclude(sweep))
    return status


if __name__ == "__main__":
    sys.exit(main())
