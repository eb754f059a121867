"""What was measured, for a person (terminal, Markdown, plot) and for programs (`bench.json`)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import plot
from measure import Goal, Measured, Measurement, Skipped
from rich.console import Console
from rich.table import Table

HEADINGS = ("row", "contender", "median", "spread", "ours is", "goal")


@attrs.frozen
class Line:
    """One contender in a table."""

    row: str
    contender: str
    median: str
    spread: str
    ratio: str
    goal: str

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADINGS`."""
        return self.row, self.contender, self.median, self.spread, self.ratio, self.goal


def lines(measured: Measured) -> Iterator[Line]:
    """A row's lines: ours first, each goal beside what it is about."""
    row = measured.row
    for name, contender in row.contenders.items():
        is_first = name == measured.ours
        goals = [_goal(measured, goal) for goal in row.goals if goal.beside == ("" if is_first else name)]
        title = row.name if is_first else ""
        if isinstance(contender, Skipped):
            yield Line(title, name, f"skipped: {contender.why}", "", "", "; ".join(goals))
            continue
        has_ratio = not is_first and measured.ours in measured.runs
        yield Line(
            title,
            name,
            f"{number(measured.median(name))} {row.unit}",
            f"{measured.spread(name):.0%}",
            f"{number(measured.ratio(name))} ×" if has_ratio else "",
            "; ".join(goals),
        )


def number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _goal(measured: Measured, goal: Goal) -> str:
    reached = measured.reached(goal)
    word = "≤" if measured.row.less_is_better else "≥"
    bound = f"{word} {number(goal.bound)}{' ×' if goal.beside else ''}"
    if reached is None:
        return f"{bound}: not measured"
    return f"{bound}: {'reached' if measured.advantage(reached, goal.bound) >= 1 else 'not reached'}"


def about(measurement: Measurement) -> str:
    """When and how a group was measured."""
    return (
        f"{measurement.began:%Y-%m-%d %H:%M} UTC, {measurement.runs} alternating runs, {measurement.seconds:.0f} s, "
        f"load {measurement.load_before:.1f} before, {measurement.load_after:.1f} after"
    )


def show(measurement: Measurement, console: Console) -> None:
    """A table on the terminal."""
    table = Table(*HEADINGS, title=f"{measurement.group}: {about(measurement)}")
    for measured in measurement.rows:
        for line in lines(measured):
            table.add_row(*line.cells())
        table.add_section()
    console.print(table)


def save(measurements: Sequence[Measurement], machine: Mapping[str, str], path: Path) -> None:
    """`bench.json`: all runs, with the machine that they were made on."""
    groups = {each.group: _as_json(each) for each in measurements}
    path.write_text(json.dumps({"machine": machine, "groups": groups}, indent=1), encoding="utf-8")


def _as_json(measurement: Measurement) -> dict[str, object]:
    rows = [
        {
            "row": measured.row.name,
            "unit": measured.row.unit,
            "less_is_better": measured.row.less_is_better,
            "goals": [attrs.asdict(goal) | {"reached": measured.reached(goal)} for goal in measured.row.goals],
            "contenders": {
                name: {
                    "runs": runs,
                    "median": measured.median(name),
                    "spread": measured.spread(name),
                    "ours_is": measured.ratio(name),
                }
                for name, runs in measured.runs.items()
            },
            "skipped": {name: each.why for name, each in measured.row.contenders.items() if isinstance(each, Skipped)},
        }
        for measured in measurement.rows
    ]
    facts = attrs.asdict(measurement, filter=attrs.filters.exclude("rows", "began", "group"))
    return {"began": measurement.began.isoformat(), **facts, "rows": rows}


def publish(measurements: Sequence[Measurement], machine: Mapping[str, str], command: str, page: Path) -> None:
    """Put each group's table and plot between its marks on a page: `<!-- bench: GROUP -->` … `<!-- end -->`."""
    text = page.read_text(encoding="utf-8")
    for measurement in measurements:
        picture = page.with_name(f"{page.stem}-{measurement.group}.svg")
        plot.draw(measurement, picture)
        text = put(text, measurement.group, markdown(measurement, machine, command, picture.name))
    page.write_text(text, encoding="utf-8")


def markdown(measurement: Measurement, machine: Mapping[str, str], command: str, picture: str) -> str:
    """A group's part of a page."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    rows += [line.cells() for measured in measurement.rows for line in lines(measured)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    return (
        f"`{command}` · {about(measurement)} · {facts}\n\n{table}\n\n"
        f"![{measurement.group}: how many times better ours is]({picture})\n"
    )


def put(text: str, group: str, part: str) -> str:
    """The page's text with this part between the group's marks; raises ValueError where there are none."""
    marks = re.compile(rf"(<!-- bench: {re.escape(group)} -->\n).*?(<!-- end -->)", re.DOTALL)
    found, count = marks.subn(lambda match: f"{match[1]}\n{part}\n{match[2]}", text)
    if not count:
        raise ValueError(f"the page has no marks for the group {group}")
    return found
