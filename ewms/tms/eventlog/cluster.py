"""What the log says of one cluster: every job's state in two bytes, and the counts that follow from them (pure)."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from ewms.tms.eventlog.format import event_time
from ewms.tms.eventlog.grouping import group_of
from ewms.tms.eventlog.packed import pack, unpack
from ewms.tms.eventlog.statuses import (
    EFFECTS,
    ENDED,
    NO_PILOT_STATUS,
    REMOVED,
    SUBMITTED,
    JobState,
    JobStatus,
    after,
    with_pilot_status,
)

UNKNOWN: Final = 0
"""The code of a proc that no event spoke of yet."""
MAX_STATES: Final = 1000
"""Different states that one cluster keeps apart; hold reasons are free text, and so are unknown pilot statuses."""
MAX_GAP: Final = 1_000_000
"""A proc number that lies further beyond the known ones is a damaged number."""
MAX_TEXT: Final = 300
"""Characters of an error or hold text at the WMS."""
TOP: Final = 10
"""Groups of errors, and of hold reasons, that the WMS hears of."""
_FURTHER: Final = f"{JobStatus.HELD}: (further reasons)"

JsonObject = dict[str, Any]


class Cluster:
    """The tally of one cluster. `codes`, `counts`, `moves`, `errors`, `ends` are open to the loop in `tally.py`."""

    # One of these for each cluster of a log, not for each job.

    def __init__(self, cluster_id: int) -> None:
        self.cluster_id = cluster_id
        self.uuid: str | None = None
        self.named_by_note = False
        self.factory = False
        self.closed = False
        """Event 036, or the schedd, said that the cluster has left the queue: nothing changes any more."""
        self.removed_at: int | None = None
        self.paused: str | None = None
        """Why the factory stopped to materialize by itself (037 without a hold code); nobody will release it."""
        self.counts = [0]
        self.codes = array("H")
        """Each proc's state, as an index into the states that this cluster has seen."""
        self.moves: dict[bytes, dict[int, int]] = {}
        """What a sign (an event's number, or a chirp's status text) makes of a state, as far as that was asked for."""
        self.errors: dict[int, str] = {}
        """The group of the current error of each job that has one."""
        self.ends: list[bytes] = []
        """Events that ended jobs and whose times were not read yet: only the last one's counts, and dates are slow."""
        self._states: list[JobState] = [JobState("", None)]
        self._codes: dict[JobState, int] = {}
        self._groups: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._last_end: int | None = None

    # --- what events do ---

    def reach(self, proc: int) -> bool:
        """Make room for a proc; False if its number cannot be true."""
        missing = proc + 1 - len(self.codes)
        if missing > MAX_GAP:
            return False
        if missing > 0:
            self.codes.frombytes(bytes(missing * self.codes.itemsize))
        return True

    def after(self, number: bytes, old: int) -> int:
        """The code of what an event makes of a state; one that says only that a job is there changes no known one."""
        if number == SUBMITTED:
            return old or self._code(JobState(JobStatus.IDLE, None))
        return self._code(after(EFFECTS[number], self._states[old] if old else None))

    def after_told(self, pilot_status: str, old: int) -> int:
        """The code of what a pilot's status makes of a state."""
        return self._code(with_pilot_status(pilot_status, self._states[old] if old else None))

    def set_state(self, proc: int, state: JobState) -> bool:
        """Put a job into a state; True if that is news."""
        old, new = self.codes[proc], self._code(state)
        if old == new:
            return False
        self.codes[proc] = new
        self.counts[old] -= 1
        self.counts[new] += 1
        return True

    def submit(self, proc: int) -> bool:
        """A job is known; True if that is news (000 may come twice, and after 001)."""
        return not self.codes[proc] and self.set_state(proc, JobState(JobStatus.IDLE, None))

    def hold(self, proc: int, reason: str) -> bool:
        """A job is held; True if that is news. Reasons are told apart by their group only."""
        group = f"{JobStatus.HELD}: {group_of(reason)}"
        news = self.set_state(proc, JobState(group, self._states[self.codes[proc]].pilot))
        if self._states[self.codes[proc]].job == group:
            self._examples.setdefault(group, f"{JobStatus.HELD}: {_cut(reason)}")
        return news

    def fail(self, proc: int, error: str) -> bool:
        """A pilot told an error, which is now its current one; True if that is news."""
        group = group_of(error)
        if self.errors.get(proc) == group:
            return False
        self.forget_error(proc)
        self.errors[proc] = group
        self._groups[group] += 1
        self._examples.setdefault(group, _cut(error))
        return True

    def forget_error(self, proc: int) -> bool:
        """A new run begins; True if the last one's error is dropped by that."""
        group = self.errors.pop(proc, None)
        if group is None:
            return False
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group], self._examples[group]
        return True

    def note_ends(self, near: date) -> None:
        """Take over when the last of the new `ends` was: it ends a plain cluster."""
        while self.ends:
            at = event_time(self.ends.pop(), near)
            if at is not None:
                self._last_end = at
                self.ends.clear()

    def close(self, at: int | None) -> bool:
        """The cluster left the queue: keep its final numbers, give the jobs' memory back; True if that is news."""
        if self.closed:
            return False
        self._remove_the_living()
        self.closed, self.removed_at = True, at if at is not None else self._last_end or 0
        self._groups = Counter(dict(self._top()))
        self._examples = {key: text for key, text in self._examples.items() if self._needs(key)}
        self.codes, self.errors, self.moves = array("H"), {}, {}
        return True

    def _remove_the_living(self) -> None:
        """Whose end the log lacks, because it was cut or came late, is gone with its cluster all the same."""
        for code, count in list(enumerate(self.counts)):
            if code and count and self._states[code].job not in ENDED:
                gone = self.after(REMOVED, code)
                self.counts[code] -= count
                self.counts[gone] += count

    # --- what follows ---

    def has_ended(self, proc: int) -> bool:
        """Whether this job has ended; where the cluster has, its jobs are not known any more."""
        return 0 <= proc < len(self.codes) and self._states[self.codes[proc]].job in ENDED

    @property
    def jobs(self) -> int:
        """Jobs that the log spoke of (a factory's others are not materialized)."""
        return sum(self.counts) - self.counts[UNKNOWN]

    def compound_statuses(self, n_workers: int | None) -> dict[str, dict[str, int]]:
        """Jobs by their status and their pilot's; workers that are not materialized yet are idle.

        Held ones are told apart by the most common reasons.
        """
        found: dict[str, dict[str, int]] = {}
        counted = [(self._states[code], count) for code, count in enumerate(self.counts) if code and count]
        if n_workers is not None and not self.closed and n_workers > self.jobs:
            counted.append((JobState(JobStatus.IDLE, None), n_workers - self.jobs))
        rare = _rare_holds(counted)
        for state, count in counted:
            job = _FURTHER if state.job in rare else self._examples.get(state.job, str(state.job))
            by_pilot = found.setdefault(job, {})
            pilot = state.pilot or NO_PILOT_STATUS
            by_pilot[pilot] = by_pilot.get(pilot, 0) + count
        return found

    def top_task_errors(self) -> dict[str, int]:
        """The most common current errors: one example of each group, and how many jobs have it."""
        found: Counter[str] = Counter()
        for group, count in self._top():
            found[self._examples[group]] += count
        return dict(found)

    def completed_at(self, n_workers: int | None) -> int | None:
        """When the cluster ended (epoch s): by event 036, or because all its jobs have ended; None while it lives.

        A factory whose size is not known may still materialize jobs, so only 036 ends it.
        """
        if self.closed:
            return self.removed_at
        total = n_workers if n_workers is not None else None if self.factory else self.jobs
        ended = sum(count for code, count in enumerate(self.counts) if code and self._states[code].job in ENDED)
        return self._last_end or 0 if total and ended >= total else None

    def _top(self) -> list[tuple[str, int]]:
        return sorted(self._groups.items(), key=_commonest)[:TOP]

    def _needs(self, example: str) -> bool:
        if example in self._groups:
            return True
        return any(count and state.job == example for state, count in zip(self._states, self.counts, strict=True))

    def _code(self, state: JobState) -> int:
        code = self._codes.get(state)
        if code is None and len(self._states) >= MAX_STATES:
            held = state.job.startswith(JobStatus.HELD)
            state = JobState(_FURTHER if held else state.job, None)
            code = self._codes.get(state)
        if code is None:
            code = self._codes[state] = len(self._states)
            self._states.append(state)
            self.counts.append(0)
        return code

    def absorb(self, later: "Cluster") -> None:
        """Take over what another, later log says of the same cluster; for each job the later word holds."""
        self.factory |= later.factory
        self.paused = later.paused
        self._last_end = max(filter(None, (self._last_end, later._last_end)), default=None)
        self._examples.update(later._examples)
        for proc, code in enumerate(later.codes):
            if code:
                self.reach(proc)
                self.set_state(proc, later._states[code])
                self.forget_error(proc)
                if proc in later.errors:
                    self.fail(proc, later.errors[proc])

    # --- on disk ---

    def dump(self) -> JsonObject:
        """All of it, as JSON values."""
        return {
            "cluster_id": self.cluster_id,
            "uuid": self.uuid,
            "named_by_note": self.named_by_note,
            "factory": self.factory,
            "closed": self.closed,
            "removed_at": self.removed_at,
            "paused": self.paused,
            "last_end": self._last_end,
            "states": self._states[1:],
            "counts": self.counts[1:],
            "codes": pack(self.codes),
            "errors": list(self.errors.items()),
            "groups": dict(self._groups),
            "examples": dict(self._examples),
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> "Cluster":
        """What `dump` gave; raises ValueError, KeyError or TypeError if it did not."""
        self = cls(int(saved["cluster_id"]))
        self.uuid, self.named_by_note, self.factory = saved["uuid"], saved["named_by_note"], saved["factory"]
        self.closed, self.removed_at, self.paused = saved["closed"], saved["removed_at"], saved["paused"]
        self._last_end = saved["last_end"]
        for job, pilot in saved["states"]:
            self._code(JobState(job, pilot))
        self.counts[1:] = saved["counts"]
        self.codes = unpack(saved["codes"], "H")
        self.errors = {int(proc): group for proc, group in saved["errors"]}
        self._groups, self._examples = Counter(saved["groups"]), dict(saved["examples"])
        return self


def merged(parts: Sequence[Cluster]) -> Cluster:
    """One cluster that several logs speak of (a log was moved away while its jobs lived), the newest log first."""
    for part in parts:
        if part.closed:
            return part
    whole = Cluster(parts[0].cluster_id)
    for part in reversed(parts):
        whole.absorb(part)
    return whole


def _rare_holds(counted: Sequence[tuple[JobState, int]]) -> set[str]:
    """The groups of hold reasons beyond the most common ones."""
    holds: Counter[str] = Counter()
    for state, count in counted:
        if state.job.startswith(JobStatus.HELD):
            holds[state.job] += count
    return {group for group, _ in sorted(holds.items(), key=_commonest)[TOP:]}


def _commonest(group: tuple[str, int]) -> tuple[int, str]:
    return -group[1], group[0]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
