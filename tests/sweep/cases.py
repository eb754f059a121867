"""What the sweep does to a TMS: scenarios, and in each of them one kill at every step that a clean run has (pure)."""

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from tests.sweep.steps import Point, parse_point


class Act(enum.Enum):
    """What happens when a step is reached."""

    TMS = "tms"
    """kill -9 of the TMS alone; its helpers go on."""
    HELPER = "helper"
    """kill -9 of the schedd helpers alone; the TMS goes on."""
    BOTH = "both"
    TERM = "term"
    """SIGTERM to the TMS: it ends in order, in the middle of what it does."""
    ANSWER = "answer"
    """The WMS has acted, and its answer is lost."""
    ABORT = "abort"
    """The user aborts the workflow."""
    FINISH = "finish"
    """The user finishes the workflow."""
    REMOVE = "remove"
    """The operator removes the cluster."""

    @property
    def ends_tms(self) -> bool:
        """Whether a new TMS has to be started."""
        return self in (Act.TMS, Act.BOTH, Act.TERM)


KILLS: Final = (Act.TMS, Act.HELPER, Act.BOTH)
"""kill -9."""
HARMS: Final = (*KILLS, Act.TERM, Act.ANSWER)


@attrs.frozen
class Trigger:
    """Do this when that point is reached, counted from the trigger before."""

    point: Point
    act: Act
    delay_ms: int = 0
    """Let go on, and do it that much later: in the middle of what follows."""

    @property
    def name(self) -> str:
        """As a part of a case's name."""
        return f"{self.point}@{self.act.value}" + (f"+{self.delay_ms}ms" if self.delay_ms else "")


def parse_trigger(point: str, act: str) -> Trigger:
    """The trigger with the name `POINT@ACT`."""
    kind, _, delay = act.partition("+")
    return Trigger(parse_point(point), Act(kind), int(delay.removesuffix("ms") or 0))


class End(enum.Enum):
    """How a scenario ends."""

    COMPLETED = "completed"
    """One cluster, confirmed, stopped when the user says so, completed."""
    WITHDRAWN = "withdrawn"
    """No cluster: what there was is removed, and the WMS never heard of it."""
    REFUSED = "refused"
    """No cluster: the order cannot be carried out, and the WMS gives up after three failures."""


class Part(enum.Enum):
    """Where a scenario differs from others: only there is it harmed."""

    ALL = "all"
    START = "start"
    """Before the taskforce is confirmed."""
    END = "end"
    """After that."""


@attrs.frozen
class Scenario:
    """One story of a taskforce; its script happens in the clean run, too."""

    name: str
    script: tuple[Trigger, ...] = ()
    end: End = End.COMPLETED
    part: Part = Part.ALL
    ends_by_itself: bool = False
    """The cluster leaves the queue without a stop order (an operator's condor_rm)."""
    has_history: bool = True
    """The schedd lets its history be asked."""
    worker_memory: str = "1 MB"


def _trigger(step: str, act: Act) -> Trigger:
    return Trigger(Point(step), act)


SCENARIOS: Final = (
    Scenario("life"),
    Scenario("restart", (_trigger("schedd:submit:acted", Act.BOTH),), part=Part.START),
    Scenario("orphan", (_trigger("schedd:submit:sent", Act.TMS),), part=Part.START),
    Scenario("lost-confirm", (_trigger("wms:POST:condor-submit:acted", Act.ANSWER),), part=Part.START),
    Scenario("stop-at-once", (_trigger("wms:POST:condor-submit:acted", Act.FINISH),)),
    Scenario("stop-restart", (_trigger("schedd:act:acted", Act.BOTH),)),
    Scenario("ends-by-itself", part=Part.END, ends_by_itself=True),
    Scenario(
        "gone-without-history",
        (_trigger("schedd:submit:acted", Act.BOTH), _trigger("tms:started", Act.REMOVE)),
        part=Part.START,
        ends_by_itself=True,
        has_history=False,
    ),
    Scenario("refused", end=End.REFUSED, worker_memory="junk"),
    Scenario("withdrawn-early", (_trigger("wms:GET:taskforce:arrived", Act.ABORT),), End.WITHDRAWN),
    Scenario("withdrawn-late", (_trigger("schedd:submit:acted", Act.ABORT),), End.WITHDRAWN),
    Scenario(
        "withdrawn-down",
        (_trigger("schedd:submit:acted", Act.BOTH), _trigger("tms:started", Act.ABORT)),
        End.WITHDRAWN,
    ),
)


@attrs.frozen
class Case:
    """A scenario with one harm done to it, or with none."""

    scenario: Scenario
    harm: Trigger | None = None

    @property
    def name(self) -> str:
        """Unique, and always the same."""
        return f"{self.scenario.name}@{self.harm.name}" if self.harm else self.scenario.name

    @property
    def loses_its_cluster(self) -> bool:
        """The operator removes it in the middle of the story: there is no time at which it must run."""
        return any(trigger.act is Act.REMOVE for trigger in self.scenario.script)

    @property
    def plan(self) -> tuple[Trigger, ...]:
        """All that happens, in order."""
        return (*self.scenario.script, self.harm) if self.harm else self.scenario.script

    @property
    def kills(self) -> int:
        """How often it kills with -9, if all its steps come."""
        return sum(trigger.act in KILLS for trigger in self.plan)


def parse_case(name: str) -> Case:
    """The case of that name.

    Raises:
        ValueError: there is no such scenario, or it is no name of a case.
    """
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    scenario, *harm = name.split("@")
    if scenario not in scenarios:
        raise ValueError(f"{name}: no scenario {scenario!r}, there are {', '.join(scenarios)}")
    if not harm:
        return Case(scenarios[scenario])
    point, act = harm
    return Case(scenarios[scenario], parse_trigger(point, act))


@attrs.frozen
class Seen:
    """A point of a clean run."""

    point: Point
    has_helper: bool
    """Whether a helper was alive then."""
    is_start: bool
    """Whether the taskforce was not confirmed yet."""


_MOST_OCCURRENCES: Final = 3
"""Later ones repeat for ever, or depend on time."""


_CHANGING: Final = ("schedd:submit:sent", "schedd:act:sent")
_DELAYS_MS: Final = (3, 15, 60, 200)
"""A submit takes from 2 ms (embedded schedd) to some 100 ms (a real one, on a busy machine)."""


def cases_of(scenario: Scenario, clean_run: Iterable[Seen]) -> list[Case]:
    """One case for each point of a clean run and each harm that can be done there."""
    return [
        Case(scenario, harm)
        for seen in clean_run
        if seen.point.occurrence <= _MOST_OCCURRENCES
        and scenario.part in (Part.ALL, Part.START if seen.is_start else Part.END)
        for harm in _harms(seen)
    ]


def _harms(seen: Seen) -> Iterator[Trigger]:
    step = seen.point.step
    for act in HARMS:
        if act is Act.HELPER and not seen.has_helper:
            continue
        if act is Act.ANSWER and not (step.startswith("wms:") and step.endswith(":acted")):
            continue
        yield Trigger(seen.point, act)
    if step in _CHANGING:
        for act in (Act.HELPER, Act.BOTH):
            yield from (Trigger(seen.point, act, delay) for delay in _DELAYS_MS)


def enough(cases: Sequence[Case], kills: int) -> list[Case]:
    """As many of them, as `choose` does it, as have so many kills together; all where they have fewer."""
    chosen = choose(cases, 0)
    while len(chosen) < len(cases) and (missing := kills - sum(case.kills for case in chosen)) > 0:
        chosen = choose(cases, len(chosen) + missing)
    return chosen


_HEART: Final = ("schedd:submit:", "schedd:act:")


def choose(cases: Sequence[Case], number: int) -> list[Case]:
    """`number` of them: the whole of the first scenario when there is room for it, else half from its heart.

    The rest is taken evenly from all others.
    """
    if number >= len(cases):
        return list(cases)
    first = [case for case in cases if case.scenario == SCENARIOS[0]]
    if number < len(first):
        heart = [case for case in first if case.harm and case.harm.point.step.startswith(_HEART)]
        first = _evenly(heart, min(len(heart), (number + 1) // 2))
    others = [case for case in cases if case not in first]
    return first + _evenly(others, number - len(first))


def _evenly(cases: Sequence[Case], number: int) -> list[Case]:
    return [cases[(2 * index + 1) * len(cases) // (2 * number)] for index in range(number)]
