"""Where pilots fail: the runs of each site and host, from the job event log (pure).

A run begins with an execute event, which names the slot's host, and the pilot chirps its site. It ends well, or it
failed in a way that speaks against its machine, or neither (removed, preempted, an event that fails everywhere). A
failure soon after the start is a quick death: a machine that kills whatever it gets takes more and more of a workflow.

Each log has a tally of its own, saved with its position; the memory of it follows living runs, and hosts of the last
day.
"""

import enum
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, Final

import attrs

from ewms.contract import CHIRP_PREFIX, SUSPECT_MACHINE_EXIT_STATUSES, ChirpAttribute
from ewms.tms.eventlog.format import Frames, classad_value, event_time
from ewms.tms.runs import Place, Run, Runs

QUICK: Final = 120
"""A run that fails within so many seconds is a quick death."""
HOUR: Final = 3600
UNKNOWN_SITE: Final = "(unknown)"

_EXECUTING: Final = b"001"
_CHIRP: Final = b"008"
_STARTER_ERROR: Final = b"021"
_ENDS: Final = frozenset({b"004", b"005", b"007", b"009", b"012", b"024"})
_SIGNS: Final = _ENDS | {_EXECUTING, _STARTER_ERROR}

_SLOT: Final = b"\n\tSlotName: "
_STARTERS_HOST: Final = re.compile(rb"021 [^\n]* (?:from|on) [^\n]*@([^\n@:]+):")
_WELL: Final = b"\n\t(1) Normal termination (return value 0)"
_RETURNED: Final = re.compile(rb"\n\t\(1\) Normal termination \(return value (-?\d{1,9})\)")
_CODE: Final = re.compile(rb"\bCode (\d{1,9})\b")
_PREFIX: Final = CHIRP_PREFIX.encode()
_SITE, _HOST, _ERROR = _TOLD = tuple(
    f'{name}: "'.removeprefix(CHIRP_PREFIX).encode()
    for name in (ChirpAttribute.SITE, ChirpAttribute.HOST, ChirpAttribute.ERROR)
)
"""How the chirps begin that count."""
_MAX_KNOWN: Final = 20_000
_LONGEST_RUN: Final = 30 * 24 * HOUR
"""The end of a run that is older was lost."""
_SHELLS_OWN: Final = 64
"""Exit statuses from here on are not the pilot's: no such program, killed by a signal."""
_MACHINES_HOLDS: Final = frozenset({6, 7, 8, 9, 10, 11, 12, 13, 14, 35, 36, 45})
"""Hold codes of what went wrong at the execution point: starting, files, container, transfers."""
_FIRST_VACATE_CODE: Final = 1000
_MAX_NAME: Final = 200


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


class SiteTally:
    """One log's counts by place and hour, fed with its events in their order."""

    def __init__(self, keep: int = 24 * HOUR) -> None:
        """Forget what is older than `keep` s before the newest event."""
        self._keep = keep
        self._living: dict[int, Runs] = {}
        """By cluster id; a cluster without a living run is not there."""
        self._hours: dict[int, dict[Place, Count]] = {}
        self._site_of: dict[str, str] = {}
        self._shared: dict[Place, Place] = {}
        self._moves: dict[tuple[Place, bytes], Place] = {}
        """What a chirp makes of a place, as far as that was asked for."""
        self._by_host: dict[bytes, Place] = {}
        """Hosts as they stand in the log, as places whose site is not known yet."""

    def take(self, found: Frames, near: date) -> None:
        """Take the events of one piece of a log; `near` is the log's day."""
        # Each event that tells something comes here a second time: what is said again and again is looked up.
        living, moves, site_of = self._living, self._moves, self._site_of
        for event, number, cluster, proc in found.events:
            if number == _CHIRP:
                start = event.find(_PREFIX) + len(_PREFIX)
                if not event.startswith(_TOLD, start) or (runs := living.get(int(cluster))) is None:
                    continue
                job, chirp = int(proc), event[start:]
                if job < 0 or (place := runs.place(job)) is None:
                    continue
                if chirp.startswith(_ERROR):
                    runs.fail(job)
                    continue
                moved = moves.get((place, chirp)) or self._told(place, chirp)
                if moved is not place:
                    runs.move(job, moved)
                site, host = moved
                if site and host:
                    site_of[host] = site
            elif number in _SIGNS and (at := event_time(event, near)) is not None and (job := int(proc)) >= 0:
                self._take(number, int(cluster), job, event, at)
                site_of = self._site_of

    def places(self, since: int) -> Iterator[tuple[Place, Count]]:
        """The runs that ended since then (epoch s, whole hours); a place comes once for each hour."""
        for hour, places in self._hours.items():
            if hour >= since // HOUR:
                yield from places.items()

    @property
    def site_of(self) -> Mapping[str, str]:
        """The site that the pilots on a host named last."""
        return self._site_of

    # --- events ---

    def _take(self, number: bytes, cluster: int, proc: int, event: bytes, at: int) -> None:
        runs = self._living.get(cluster)
        if number in _BEGINS:
            if runs is None:
                runs = self._living[cluster] = Runs()
            # It may fail before it ever executes.
            if number == _EXECUTING or runs.place(proc) is None:
                runs.begin(proc, at, self._where(_BEGINS[number](event)))
        elif runs is not None and (run := runs.end(proc)) is not None:
            if not runs.living:
                del self._living[cluster]
            self._count(run, at, end_of(number, event))

    def _told(self, place: Place, chirp: bytes) -> Place:
        """Where a run is whose place was `place`, and who told more of it."""
        if len(self._moves) >= _MAX_KNOWN:
            self._moves.clear()
        is_site = chirp.startswith(_SITE)
        name = _short(chirp.partition(b": ")[2])
        moved = self._share(Place(name, place.host) if is_site else Place(place.site, name))
        self._moves[place, chirp] = moved
        return moved

    def _where(self, host: bytes) -> Place:
        place = self._by_host.get(host)
        if place is None:
            if len(self._by_host) >= _MAX_KNOWN:
                self._by_host.clear()
            place = self._by_host[host] = self._share(Place("", _short(host)))
        return place

    def _share(self, place: Place) -> Place:
        return self._shared.setdefault(place, place)

    def _count(self, run: Run, at: int, end: End) -> None:
        lasted = max(0, at - run.started)
        failed = end is End.FAILED or (end is End.CUT_SHORT and run.has_error)
        hour = at // HOUR
        places = self._hours.get(hour)
        is_first = places is None
        if places is None:
            places = self._hours[hour] = defaultdict(Count)
        count = places[run.place]
        count.runs += 1
        count.failures += failed
        count.quick += failed and lasted <= QUICK
        count.busy += lasted
        if is_first:
            self._forget()

    def _forget(self) -> None:
        newest = max(self._hours)
        oldest = newest - self._keep // HOUR
        for hour in [each for each in self._hours if each < oldest]:
            del self._hours[hour]
        for cluster, runs in list(self._living.items()):
            runs.forget_before(newest * HOUR - _LONGEST_RUN)
            if not runs.living:
                del self._living[cluster]
        self._shared = {place: place for runs in self._living.values() for place in runs.places()}
        self._moves.clear()
        self._by_host.clear()
        everywhere: list[Iterable[Place]] = [*self._hours.values(), self._shared]
        known = {place.host for places in everywhere for place in places}
        self._site_of = {host: site for host, site in self._site_of.items() if host in known}

    # --- on disk ---

    def dump(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "living": {cluster: runs.dump() for cluster, runs in self._living.items()},
            "ended": [
                (hour, *place, count.runs, count.failures, count.quick, count.busy)
                for hour, places in self._hours.items()
                for place, count in places.items()
            ],
            "site_of": self._site_of,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> "SiteTally":
        """What `dump` gave; raises ValueError, LookupError or TypeError if it did not."""
        self = cls()
        self._living = {int(cluster): Runs.load(runs, self._share) for cluster, runs in saved["living"].items()}
        for hour, site, host, *numbers in saved["ended"]:
            self._hours.setdefault(hour, defaultdict(Count))[Place(site, host)] = Count(*numbers)
        self._site_of = dict(saved["site_of"])
        return self


class Sites:
    """The tallies of all logs together."""

    def __init__(self, keep: int = 24 * HOUR) -> None:
        """Each log's tally forgets what is older than `keep` s before its newest event."""
        self._keep = keep
        self._tallies: dict[str, SiteTally] = {}

    def tally(self, log_name: str) -> SiteTally:
        """A log's own tally, to be fed."""
        if log_name not in self._tallies:
            self.restart(log_name)
        return self._tallies[log_name]

    def restore(self, log_name: str, tally: SiteTally) -> None:
        """Go on with a tally from a checkpoint."""
        self._tallies[log_name] = tally

    def restart(self, log_name: str) -> None:
        """Begin anew with a log: it is read from its beginning."""
        self._tallies[log_name] = SiteTally(self._keep)

    def drop(self, log_name: str) -> None:
        """Forget a log."""
        self._tallies.pop(log_name, None)

    def sites(self, since: int = 0) -> dict[str, Count]:
        """Each site's runs that ended since then (epoch s, whole hours)."""
        site_of = self._all_sites()
        return self._totals(since, lambda place: place.site or site_of.get(place.host) or UNKNOWN_SITE)

    def hosts(self, since: int = 0) -> dict[str, Count]:
        """Each host's runs that ended since then; runs whose host is not known are left out."""
        found = self._totals(since, lambda place: place.host)
        found.pop("", None)
        return found

    def site_of(self, hosts: Iterable[str]) -> dict[str, str]:
        """The site that pilots on each of these hosts named last."""
        known = self._all_sites()
        return {host: known.get(host, UNKNOWN_SITE) for host in hosts}

    def _all_sites(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, tally in sorted(self._tallies.items()):  # the newest log has the last word
            found |= tally.site_of
        return found

    def _totals(self, since: int, name: Callable[[Place], str]) -> dict[str, Count]:
        found: dict[str, Count] = defaultdict(Count)
        for tally in self._tallies.values():
            for place, count in tally.places(since):
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
    if _WELL in event:
        return End.WELL
    match = _RETURNED.search(event)
    if match is None:
        return End.FAILED  # killed by a signal
    status = int(match[1])
    # The pilot's other statuses speak against the events, or say that it was told to go.
    return End.FAILED if status in SUSPECT_MACHINE_EXIT_STATUSES or status >= _SHELLS_OWN or status < 0 else End.WELL


def _code(text: bytes) -> int | None:
    match = _CODE.search(text)
    return int(match[1]) if match else None


def _slots_host(event: bytes) -> bytes:
    _, _, behind = event.partition(_SLOT)
    slot, _, _ = behind.partition(b"\n")
    _, at, host = slot.rstrip(b"@").rpartition(b"@")
    return host if at else b""


def _starters_host(event: bytes) -> bytes:
    match = _STARTERS_HOST.search(event)
    return match[1] if match else b""


_BEGINS: Final = {_EXECUTING: _slots_host, _STARTER_ERROR: _starters_host}
"""Events by which a run can begin, and how to find its host in them."""


@lru_cache(maxsize=4096)
def _short(raw: bytes) -> str:
    return classad_value(raw)[:_MAX_NAME]
