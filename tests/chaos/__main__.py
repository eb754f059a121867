"""`nox -s chaos`: the whole system under a seeded schedule of faults; nothing may be lost.

Examples:
    nox -s chaos                                         4 minutes of faults on the real pool
    nox -s chaos -- --ground embedded --minutes 0.5      what CI does
    nox -s chaos -- --seed 7 --only pilot-kill --only broker-restart
    nox -s chaos -- --replay schedule.jsonl --shrink 20  play a schedule again, and find a shorter one that fails
    nox -s chaos -- --soak --minutes 40                  TMS and half of the pilots live on: does their memory grow?
    nox -s chaos -- --document docs/reliability.md run-1.json run-2.json
"""

import argparse
import os
import random
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from ewms import logs
from tests.apart import go_apart
from tests.chaos import table
from tests.chaos.faults import kinds
from tests.chaos.kinds import has
from tests.chaos.places import OPENERS
from tests.chaos.run import Plan, PoolUnavailable, run
from tests.chaos.schedule import Timed, closed_up, dump, parse, plan, shrunk
from tests.chaos.table import Result
from tests.worked import in_new_directory

_LONGEST_GAP_S: Final = 5.0
"""In a schedule out of which faults were taken."""


_SHRINKING_MIN: Final = 12.0
"""So long a failed run may look for a shorter schedule, unless it is told otherwise."""
_AROUND_MIN: Final = 2.0
"""What a run takes beside its faults."""


def reruns(minutes: float) -> int:
    """How many runs with so many minutes of faults fit."""
    return int(_SHRINKING_MIN / (minutes + _AROUND_MIN))


def again(words: Sequence[str], seed: int | None) -> str:
    """The command that plays the same once more; `seed` where that came by chance."""
    return shlex.join(["nox", "-s", "chaos", "--", *words, *([] if seed is None else ["--seed", str(seed)])])


def say(text: str) -> None:
    """Progress, for people."""
    print(f"  … {text}", file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s chaos --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ground", choices=sorted(OPENERS), default="pool", help="where (%(default)s)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of faults (%(default)s)")
    parser.add_argument("--seed", type=int, help="what the schedule is made from (by chance)")
    parser.add_argument("--every", type=float, default=5.0, help="s between two faults, on average (%(default)s)")
    parser.add_argument("--only", action="append", default=[], metavar="KIND", help="only these faults")
    parser.add_argument("--soak", action="store_true", help="no faults that end the TMS, and some pilots are spared")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play this schedule, not one from a seed")
    parser.add_argument(
        "--shrink",
        type=int,
        metavar="N",
        help="after a failure, look for a shorter one in N further runs (as many as fit into 12 minutes)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep all logs")
    parser.add_argument(
        "--document", nargs="+", type=Path, metavar=("PAGE", "RESULT"), help="write the table of results into a page"
    )
    return parser.parse_args()


class Chaos:
    """What the command line asks for."""

    def __init__(self, options: argparse.Namespace, work_dir: Path) -> None:
        self._options = options
        self._work_dir = work_dir
        self._seed = random.randrange(1 << 16) if options.seed is None else options.seed
        self._reruns = reruns(options.minutes) if options.shrink is None else options.shrink
        self._runs = 0

    async def main(self) -> int:
        """The exit status: 0 when all was right."""
        schedule = parse(self._options.replay.read_text()) if self._options.replay else None
        played, result = await self._run(schedule)
        print(f"\n{table.table(result)}\n", flush=True)
        if self._options.out:
            self._options.out.write_text(table.dump(result))
        if not result.problems:
            return 0
        is_told = self._options.seed is not None or self._options.replay is not None
        print(f"again: {again(sys.argv[1:], None if is_told else self._seed)}")
        print(f"its schedule: {self._work_dir}/run-1/schedule.jsonl, for --replay")
        if self._reruns:
            await self._shrink(played)
        return 1

    async def _shrink(self, played: Sequence[Timed]) -> None:
        async def fails(part: Sequence[Timed]) -> bool:
            say(f"again, with {len(part)} of {len(played)} faults")
            _, result = await self._run(closed_up(part, _LONGEST_GAP_S))
            return bool(result.problems)

        shortest = closed_up(await shrunk(played, fails, self._reruns), _LONGEST_GAP_S)
        path = self._work_dir / "shortest.jsonl"
        path.write_text(dump(shortest))
        print(f"the shortest schedule found that fails has {len(shortest)} faults:\n{dump(shortest)}")
        print(f"again: nox -s chaos -- --ground {self._options.ground} --replay {path}")

    async def _run(self, schedule: Sequence[Timed] | None) -> tuple[Sequence[Timed], Result]:
        self._runs += 1
        work_dir = self._work_dir / f"run-{self._runs}"
        work_dir.mkdir()
        work_dir.chmod(0o755)
        wheel = os.environ.get("EWMS_TEST_WHEEL")
        async with OPENERS[self._options.ground](work_dir, say, Path(wheel) if wheel else None) as place:
            possible = kinds(has(place), self._options.only, soak=self._options.soak)
            minutes = self._options.minutes
            if schedule is None:
                spells = [kind.spell for kind in possible.values()]
                schedule = plan(self._seed, minutes * 60, self._options.every, spells)
            elif schedule:
                possible = kinds(has(place), {fault.kind for fault in schedule})
                minutes = (schedule[-1].at + schedule[-1].lasts + _LONGEST_GAP_S) / 60
            (work_dir / "schedule.jsonl").write_text(dump(schedule))
            say(f"{len(schedule)} faults of {len({fault.kind for fault in schedule})} kinds; all is in {work_dir}")
            the_plan = Plan(
                ground=self._options.ground,
                seed=self._seed,
                minutes=minutes,
                schedule=schedule,
                kinds=possible,
                spares=self._options.soak,
            )
            return schedule, await run(the_plan, place, work_dir, say)


def _document(page: Path, results: Sequence[Path]) -> int:
    found = [table.parse(path.read_text()) for path in results]
    page.write_text(table.insert(page.read_text(), table.document(found)))
    print(f"{len(found)} runs stand in {page}")
    return 0


def main() -> int:
    """The exit status."""
    options = _parse()
    if options.document:
        return _document(options.document[0], options.document[1:])
    go_apart("tests.chaos")
    logs.configure("CRITICAL", "CRITICAL")

    def work(directory: Path) -> int:
        try:
            return trio.run(Chaos(options, directory).main)
        except PoolUnavailable as error:
            print(f"no real pool here: {error}")
            return 2

    return in_new_directory("ewms-chaos-", work, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
