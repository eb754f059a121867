"""The sweep's results as a table (pure)."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import attrs

from tests.sweep.cases import HARMS, Act, Case, Seen


@attrs.frozen
class Result:
    """What came of a case."""

    case: Case
    is_reached: bool
    """Whether the step came where it was to be harmed."""
    kills: int
    n_clusters: int
    """All that ever were."""
    problems: tuple[str, ...]
    seen: tuple[Seen, ...]
    """The points after the plan was played."""
    seconds: float
    diary: tuple[str, ...]


def table(results: Iterable[Result]) -> str:
    """One row for each step and kind of harm: cases, kills, clusters found, outcome; then the totals."""
    results = list(results)
    rows: dict[tuple[str, Act], list[Result]] = defaultdict(list)
    for result in results:
        if result.case.harm:
            rows[result.case.harm.point.step, result.case.harm.act].append(result)
    lines = [_row(step, act, rows[step, act]) for step, act in sorted(rows, key=lambda row: (row[0], _rank(row[1])))]
    header = ("step", "kind", "cases", "clusters found", "outcome")
    return "\n".join([*_aligned([header, *lines]), "", totals(results)])


def _rank(act: Act) -> int:
    return HARMS.index(act)


def _row(step: str, act: Act, results: Sequence[Result]) -> tuple[str, ...]:
    ends = Counter((result.n_clusters, result.case.scenario.end.value) for result in results)
    found = ", ".join(f"{times}x {n} {end}" for (n, end), times in sorted(ends.items()))
    missed = sum(not result.is_reached for result in results)
    wrong = sum(bool(result.problems) for result in results)
    outcome = f"{wrong} WRONG" if wrong else "ok"
    return step, act.value, str(len(results)), found, outcome + (f", {missed} not reached" if missed else "")


def totals(results: Sequence[Result]) -> str:
    """One line."""
    wrong = [result for result in results if result.problems]
    kills = sum(result.kills for result in results)
    done = Counter(result.case.harm.act for result in results if result.case.harm and result.is_reached)
    missed = sum(not result.is_reached for result in results)
    return (
        f"{len(results)} cases: {kills} kills, {done[Act.TERM]} shutdowns, {done[Act.ANSWER]} lost answers, "
        f"{missed} steps not reached; "
        f"{sum(result.n_clusters for result in results)} clusters; {len(wrong)} wrong"
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
