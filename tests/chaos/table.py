"""What a run gave, as a table for people, as JSON, and several of them as a table of the documentation (pure)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from tests.chaos import memory

BEGIN: Final = "<!-- chaos: begin -->"
END: Final = "<!-- chaos: end -->"


@attrs.frozen(kw_only=True)
class Result:
    """One run."""

    ground: str
    broker: str
    seed: int
    minutes: float
    faults: Mapping[str, int]
    """By kind."""
    recoveries: Mapping[str, float]
    """Kind → the longest recovery, in s. Faults overlap, so each is an upper bound."""
    events_in: int
    events_out: int
    """Events that have an output."""
    duplicates: int
    interruptions: int
    """Times that a pilot was disturbed: at most so many events may be done twice."""
    lost: int
    taskforces: int
    clusters: int
    orphans: int
    tokens: int
    """Places where a secret was seen."""
    tms_memory_mb: int
    seconds: float
    """The whole run, with its beginning and its end."""
    notes: Mapping[str, int]
    problems: tuple[str, ...]
    lives: tuple[memory.Life, ...] = ()
    """Memory of those that lived longest."""

    @property
    def n_faults(self) -> int:
        """All of them."""
        return sum(self.faults.values())

    @property
    def n_problems(self) -> int:
        """How much was wrong."""
        return len(self.problems)


def dump(result: Result) -> str:
    """As JSON."""
    return json.dumps(attrs.asdict(result), indent=1) + "\n"


def parse(text: str) -> Result:
    """From JSON; raises `ValueError` when it is no result."""
    try:
        values: dict[str, Any] = json.loads(text)
        lives = tuple(map(memory.parse, values.get("lives", ())))
        return Result(**{**values, "problems": tuple(values["problems"]), "lives": lives})
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no result of a chaos run: {error}") from error


def table(result: Result) -> str:
    """One run, for a terminal."""
    rows = [("fault", "times", "longest recovery")]
    rows += [
        (kind, str(times), f"{result.recoveries[kind]:.1f} s" if kind in result.recoveries else "-")
        for kind, times in sorted(result.faults.items())
    ]
    lines = [*_aligned(rows), "", *_aligned([memory.HEADINGS, *map(memory.row, result.lives)]), "", summary(result)]
    if result.notes:
        lines.append("not done: " + ", ".join(f"{what} ({times})" for what, times in sorted(result.notes.items())))
    lines += [f"WRONG: {problem}" for problem in result.problems]
    return "\n".join(lines)


def summary(result: Result) -> str:
    """One run in a line or two."""
    return (
        f"{result.ground} ({result.broker}), seed {result.seed}, {result.minutes:g} min: {result.n_faults} faults; "
        f"events: {result.events_in} in, {result.events_out} done, {result.duplicates} duplicates "
        f"({result.interruptions} interruptions of pilots), {result.lost} lost; "
        f"{result.taskforces} taskforces, {result.clusters} clusters; {result.orphans} orphans; "
        f"{result.tokens} tokens seen; TMS at most {result.tms_memory_mb} MB; {result.seconds:.0f} s in all"
    )


_COLUMNS: Final[Mapping[str, str]] = {
    "faults": "n_faults",
    "events in": "events_in",
    "done": "events_out",
    "pilots interrupted": "interruptions",
    "duplicates": "duplicates",
    "lost": "lost",
    "taskforces": "taskforces",
    "clusters": "clusters",
    "orphans": "orphans",
    "tokens seen": "tokens",
    "wrong": "n_problems",
}
"""What is counted → the attribute."""


def document(results: Sequence[Result]) -> str:
    """Several runs as Markdown."""
    rows = [("ground", "seed", "minutes", *_COLUMNS)]
    rows += [
        (f"{each.ground}, {each.broker}", str(each.seed), f"{each.minutes:g}", *_counts([each])) for each in results
    ]
    rows.append(("all", "", f"{sum(each.minutes for each in results):g}", *_counts(results)))
    return "\n".join([*_markdown(rows), "", *_markdown(_by_kind(results)), *_long_lives(results)])


def _long_lives(results: Sequence[Result]) -> Iterable[str]:
    """Of each run that is long enough: whether its processes grew."""
    for each in results:
        if found := [life for life in each.lives if life.minutes >= memory.LONG_MIN]:
            yield from ("", f"Seed {each.seed}, memory and descriptors of those that lived longest:", "")
            yield from _markdown([memory.HEADINGS, *map(memory.row, found)])


def _counts(results: Sequence[Result]) -> list[str]:
    return [str(sum(getattr(each, name) for each in results)) for name in _COLUMNS.values()]


def _by_kind(results: Sequence[Result]) -> list[tuple[str, ...]]:
    grounds = sorted({each.ground for each in results})
    kinds = sorted({kind for each in results for kind in each.faults})
    rows: list[tuple[str, ...]] = [
        ("fault", *(cell for ground in grounds for cell in (f"{ground}: times", "longest recovery")))
    ]
    for kind in kinds:
        cells = []
        for ground in grounds:
            here = [each for each in results if each.ground == ground]
            times = sum(each.faults.get(kind, 0) for each in here)
            longest = max((each.recoveries[kind] for each in here if kind in each.recoveries), default=None)
            cells += [str(times) if times else "", "" if longest is None else f"{longest:.1f} s"]
        rows.append((kind, *cells))
    return rows


def insert(page: str, text: str) -> str:
    """The page with the text between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _markdown(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    head, *body = rows
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in body:
        yield "| " + " | ".join(row) + " |"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
