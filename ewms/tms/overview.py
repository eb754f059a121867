"""All taskforces at a glance: totals, and the ones that a person should look at first (pure).

A TMS serves this of what it knows (`/taskforces`), and `ewms top` makes the same of day logs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import attrs
import cattrs

from ewms.contract import PilotStatus
from ewms.tms.board import TaskforceReport
from ewms.tms.eventlog.grouping import group_of
from ewms.tms.eventlog.statuses import JobStatus

ROWS: Final = 100
"""Taskforces that are shown one by one: more than a terminal has lines."""
_ERRORS: Final = 10
_converter: Final = cattrs.Converter()


@attrs.frozen
class Row:
    """One taskforce."""

    uuid: str
    """Its UUID; `cluster:ID` where only day logs speak and none names it."""
    stage: str
    """How far it is, as its teller calls it."""
    cluster_id: int | None = None
    """HTCondor's number of its cluster."""
    workers: Mapping[str, int] = attrs.field(factory=dict)
    """Jobs by their status; why some are held is in `trouble`."""
    tasking: int = 0
    """Running jobs whose pilot has events to process."""
    errors: Mapping[str, int] = attrs.field(factory=dict)
    """Task errors, and how many jobs have each."""
    trouble: str = ""
    """Why no more workers come, or why some are held, or what else keeps it from its end; "" when nothing does."""
    is_blocked: bool = False
    """It does not go on by itself, however its workers are: that is what `trouble` says then."""
    has_ended: bool = False
    """Its cluster has left the queue: what its jobs had is history."""

    @property
    def bad(self) -> int:
        """Jobs that are held or have an error."""
        return self.workers.get(JobStatus.HELD, 0) + sum(self.errors.values())

    @property
    def is_in_trouble(self) -> bool:
        """Whether somebody should look at it."""
        return self.is_blocked or (self.bad > 0 and not self.has_ended)


@attrs.frozen
class Overview:
    """All of them, the first ones in rows."""

    stages: Mapping[str, int] = attrs.field(factory=dict)
    """How many taskforces there are in each stage."""
    in_trouble: int = 0
    """How many of them somebody should look at."""
    workers: Mapping[str, int] = attrs.field(factory=dict)
    """Jobs by status, of taskforces that have not ended."""
    errors: Mapping[str, int] = attrs.field(factory=dict)
    """The most common errors of all those, one text of each group, and how many jobs have one."""
    rows: tuple[Row, ...] = ()
    """What does not go on by itself, then what has most bad workers; then the busiest; what has ended last."""

    @property
    def taskforces(self) -> int:
        """How many there are."""
        return sum(self.stages.values())


def row_of(stage: str, report: TaskforceReport) -> Row:
    """A taskforce as its jobs say, and its stage as its teller calls it."""
    workers: Counter[str] = Counter()
    holds: Counter[str] = Counter()
    tasking = 0
    for status, by_pilot in report.compound_statuses.items():
        word, _, reason = status.partition(": ")
        count = sum(by_pilot.values())
        workers[word] += count
        if reason:
            holds[reason] += count
        if word == JobStatus.RUNNING:
            tasking += by_pilot.get(PilotStatus.TASKING, 0)
    has_ended = report.completed_at is not None
    row = Row(report.uuid, stage, report.cluster_id, workers, tasking, report.top_task_errors, has_ended=has_ended)
    if has_ended:
        return row
    if report.materialization_failure is not None:
        return blocked(row, f"no further workers: {report.materialization_failure}")
    return attrs.evolve(row, trouble=f"held: {max(holds, key=holds.__getitem__)}") if holds else row


def blocked(row: Row, trouble: str) -> Row:
    """The taskforce, which does not go on by itself, and why."""
    return attrs.evolve(row, trouble=trouble, is_blocked=True)


def overview(rows: Iterable[Row], limit: int = ROWS) -> Overview:
    """All taskforces together, and `limit` of them one by one."""
    rows = sorted(rows, key=_urgency)
    living = [row for row in rows if not row.has_ended]
    workers: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for row in living:
        workers.update(row.workers)
        for text, count in row.errors.items():
            group = group_of(text)
            errors[group] += count
            texts.setdefault(group, text)
    return Overview(
        Counter(row.stage for row in rows),
        sum(row.is_in_trouble for row in rows),
        workers,
        {texts[group]: count for group, count in errors.most_common(_ERRORS)},
        tuple(rows[:limit]),
    )


def _urgency(row: Row) -> tuple[object, ...]:
    running, idle = row.workers.get(JobStatus.RUNNING, 0), row.workers.get(JobStatus.IDLE, 0)
    return not row.is_blocked, not row.is_in_trouble, row.has_ended, -row.bad, -running, -idle, row.uuid


# --- as JSON ---


def dump(whole: Overview) -> str:
    """The text that `load` reads."""
    return json.dumps(_converter.unstructure(whole))


def load(text: str) -> Overview:
    """What `dump` wrote; raises ValueError for anything else."""
    saved = json.loads(text)
    try:
        return _converter.structure({**saved}, Overview)
    except (cattrs.BaseValidationError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no overview of taskforces: {text[:80]!r}") from error
