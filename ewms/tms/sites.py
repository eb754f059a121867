"""Where pilots fail: the runs of each site and host, from the job event log (pure).

A run begins with an execute event, which names the slot's host, and the pilot chirps its site. It ends well, or it
failed in a way that speaks against its machine, or neither (removed, preempted, an event that fails everywhere). A
failure soon after the start is a quick death: a machine that kills whatever it gets takes more and more of a workflow.

The memory of it follows living runs, and hosts of the last day.
"""

import enum
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

import attrs

from ewms.contract import CHIRP_PREFIX, SUSPECT_MACHINE_EXIT_STATUSES, ChirpAttribute
from ewms.tms.eventlog.format import Frames, classad_value, event_time, ids_of, text_of

QUICK: Final = 120
"""A run that fails within so many seconds is a quick death."""
HOUR: Final = 3600
UNKNOWN_SITE: Final = "(unknown)"

_EXECUTING: Final = b"001"
_CHIRP: Final = b"008"
_STARTER_ERROR: Final = b"021"
_ENDS: Final = frozenset({b"004", b"005", b"007", b"009", b"012", b"024"})
_SIGNS: Final = _ENDS | {_EXECUTING, _STARTER_ERROR}

_SLOT_HOST: Final = re.compile(rb"\n\tSlotName: [^\n]*@([^\n@]+)|^021 [^\n]* (?:from|on) [^\n]*@([^\n@:]+):")
_RETURNED: Final = re.compile(rb"\n\t\(1\) Normal termination \(return value (-?\d{1,9})\)")
_CODE: Final = re.compile(rb"\bCode (\d{1,9})\b")
_PREFIX: Final = CHIRP_PREFIX.encode()
_ERROR: Final = ChirpAttribute.ERROR.removeprefix(CHIRP_PREFIX).encode()
_TOLD: Final = {
    name.removeprefix(CHIRP_PREFIX)[:2].encode(): name
    for name in (ChirpAttribute.SITE, ChirpAttribute.HOST, ChirpAttribute.ERROR)
}
_LONGEST_RUN: Final = 30 * 24 * HOUR
"""The end of a run that is older was lost."""
_SHELLS_OWN: Final = 64
"""Exit statuses from here on are not the pilot's: no such program, killed by a signal."""
_MACHINES_HOLDS: Final = frozenset({6, 7, 8, 9, 10, 11, 12, 13, 14, 35, 36, 45})
"""Hold codes of what went wrong at the execution point: starting, files, container, transfers."""
_FIRST_VACATE_CODE: Final = 1000
_QUOTE: Final = ord('"')
_MAX_NAME: Final = 200
_DATE_BYTES: Final = 27
"""The longest date that an event can have."""

Job = tuple[int, int]
"""Cluster and proc."""


class Place(NamedTuple):
    """Where a run is, or was."""

    site: str
    host: str


class End(enum.Enum):
    """How a run ended, as far as its machine is concerned."""

    WELL = "well"
    FAILED = "failed"
    CUT_SHORT = "cut short"
    """By others: removed, preempted, held by its user. It failed all the same if its pilot had told an error."""


@attrs.define
class Count:
    """Runs that ended at a place."""

    runs: int = 0
    failures: int = 0
    quick: int = 0
    """Failures that were quick deaths."""
    busy: int = 0
    """Seconds that the runs took: what the place is worth."""

    def add(self, other: "Count") -> None:
        """Add another count to this one."""
        self.runs += other.runs
        self.failures += other.failures
        self.quick += other.quick
        self.busy += other.busy


@attrs.define
class _Run:
    started: int
    host: str
    site: str = ""
    has_error: bool = False


class SiteTally:
    """Counts by place and hour, fed with events in the order of each log."""

    def __init__(self, keep: int = 24 * HOUR) -> None:
        """Forget what is older than `keep` s before the newest event."""
        self._keep = keep
        self._living: dict[Job, _Run] = {}
        self._hours: dict[int, dict[Place, Count]] = {}
        self._site_of: dict[str, str] = {}

    def take(self, found: Frames, near: date) -> None:
        """Take the events of one piece of a log; `near` is the log's day."""
        for event, key in zip(found.events, found.keys, strict=True):
            sign = event[:3]
            if sign == _CHIRP:
                # Most chirps are counters: numbers without quotes, or (today's pilots) told apart by two letters.
                if event[-1] != _QUOTE:
                    continue
                start = event.find(_PREFIX) + len(_PREFIX)
                if event[start : start + 2] in _TOLD and (run := self._living.get(ids_of(key))) is not None:
                    self._told(run, event[start:])
            elif sign in _SIGNS and (at := _time(event[event.find(b") ") + 2 :][:_DATE_BYTES], near)) is not None:
                self._take(sign, ids_of(key), event, at)

    def sites(self, since: int = 0) -> dict[str, Count]:
        """Each site's runs that ended since then (epoch s, whole hours)."""
        return self._totals(since, lambda place: place.site or self._site_of.get(place.host) or UNKNOWN_SITE)

    def hosts(self, since: int = 0) -> dict[str, Count]:
        """Each host's runs that ended since then; runs whose host is not known are left out."""
        found = self._totals(since, lambda place: place.host)
        found.pop("", None)
        return found

    def site_of(self, host: str) -> str:
        """The site that pilots on this host named last."""
        return self._site_of.get(host, UNKNOWN_SITE)

    # --- events ---

    def _take(self, sign: bytes, job: Job, event: bytes, at: int) -> None:
        if sign == _EXECUTING:
            self._living[job] = _Run(at, _host(event))
        elif sign == _STARTER_ERROR:
            self._living.setdefault(job, _Run(at, _host(event)))  # it may fail before it ever executes
        elif (run := self._living.pop(job, None)) is not None:
            self._count(run, at, end_of(sign, event))

    def _told(self, run: _Run, chirp: bytes) -> None:
        name, _, raw = chirp.partition(b": ")
        value = classad_value(raw)[:_MAX_NAME]
        match _TOLD.get(name[:2]):
            case ChirpAttribute.SITE:
                run.site = value
            case ChirpAttribute.HOST:
                run.host = value
            case ChirpAttribute.ERROR if name == _ERROR:
                run.has_error = True
        if run.site and run.host:
            self._site_of[run.host] = run.site

    def _count(self, run: _Run, at: int, end: End) -> None:
        lasted = max(0, at - run.started)
        failed = end is End.FAILED or (end is End.CUT_SHORT and run.has_error)
        count = Count(1, int(failed), int(failed and lasted <= QUICK), lasted)
        hour = at // HOUR
        is_first = hour not in self._hours
        self._hours.setdefault(hour, defaultdict(Count))[Place(run.site, run.host)].add(count)
        if is_first:
            self._forget()

    def _forget(self) -> None:
        newest = max(self._hours)
        oldest = newest - self._keep // HOUR
        for hour in [each for each in self._hours if each < oldest]:
            del self._hours[hour]
        self._living = {job: run for job, run in self._living.items() if run.started > newest * HOUR - _LONGEST_RUN}
        known = {place.host for places in self._hours.values() for place in places}
        known.update(run.host for run in self._living.values())
        self._site_of = {host: site for host, site in self._site_of.items() if host in known}

    def _totals(self, since: int, name: Callable[[Place], str]) -> dict[str, Count]:
        found: dict[str, Count] = defaultdict(Count)
        for hour, places in self._hours.items():
            if hour >= since // HOUR:
                for place, count in places.items():
                    found[name(place)].add(count)
        return dict(found)


# --- what events say ---


def end_of(sign: bytes, event: bytes) -> End:
    """How a run ended, by the event that ended it."""
    match sign:
        case b"005":
            return _end_of_status(event)
        case b"004" if b"\n\t(0) Job terminated and was requeued" in event:
            return _end_of_status(event)
        case b"004":
            # Without a code, or with a vacate code: somebody wanted the slot or the job.
            code = _code(event.partition(b"\n")[0])
            return End.FAILED if code is not None and code < _FIRST_VACATE_CODE else End.CUT_SHORT
        case b"007":
            return End.FAILED
        case b"012":
            return End.FAILED if _code(event) in _MACHINES_HOLDS else End.CUT_SHORT
        case _:
            return End.CUT_SHORT


def _end_of_status(event: bytes) -> End:
    match = _RETURNED.search(event)
    if match is None:
        return End.FAILED  # killed by a signal
    status = int(match[1])
    # The pilot's other statuses speak against the events, or say that it was told to go.
    return End.FAILED if status in SUSPECT_MACHINE_EXIT_STATUSES or status >= _SHELLS_OWN or status < 0 else End.WELL


@lru_cache(maxsize=1024)  # many events share a second, and dates are slow to read
def _time(stamp: bytes, near: date) -> int | None:
    return event_time(b"000 (000.000.000) " + stamp + b" ", near)


def _code(text: bytes) -> int | None:
    match = _CODE.search(text)
    return int(match[1]) if match else None


def _host(event: bytes) -> str:
    match = _SLOT_HOST.search(event)
    return text_of(match[1] or match[2]).strip()[:_MAX_NAME] if match else ""
