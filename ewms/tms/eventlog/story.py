"""What happened to one taskforce, from its log: for a person who asks why (pure)."""

import re
from collections import deque
from datetime import date
from typing import Final

import attrs

from ewms.contract import CHIRP_PREFIX, ChirpAttribute
from ewms.tms.eventlog import statuses
from ewms.tms.eventlog.format import classad_value, event_time, frames, text_of
from ewms.tms.eventlog.grouping import group_of

_LAST_ERRORS: Final = 5
_ERROR: Final = f"{ChirpAttribute.ERROR}: ".encode()
_PREFIX: Final = CHIRP_PREFIX.encode()
_REASON: Final = re.compile(rb"\n\tReason: ([^\n]*)")
_FIRST_BODY_LINE: Final = re.compile(rb"[^\n]*\n[\t ]+([^\n]*)")
_COUNTED: Final = {
    b"001": "started to run",
    b"004": "evicted",
    b"005": "terminated",
    b"007": "shadow exception",
    b"009": "removed",
    b"010": "suspended",
    b"012": "held",
    b"013": "released",
    b"021": "error from the execution point",
    b"022": "disconnected",
    b"024": "reconnection failed",
}
"""Events of jobs that a story tells, and their words."""
_WITH_REASON: Final = frozenset({b"004", b"007", b"009", b"012", b"021", b"024"})


@attrs.define
class Chapter:
    """Events of one kind and reason."""

    what: str
    reason: str
    """One example of the reason; what varies in it was not told apart."""
    first: int
    last: int
    count: int = 0
    jobs: set[int] = attrs.field(factory=set)


@attrs.frozen
class TaskError:
    """An error that a pilot told."""

    at: int
    proc: int
    text: str


class Story:
    """One cluster's chapters, in the order of their first events; `feed` it the log's bytes."""

    def __init__(self, cluster_id: int, near: date) -> None:
        self.cluster_id = cluster_id
        self.near = near
        self.chapters: dict[tuple[str, str], Chapter] = {}
        self.last_errors: deque[TaskError] = deque(maxlen=_LAST_ERRORS)

    def feed(self, data: bytes) -> None:
        """Take whole events, in the order of the log."""
        for event, number, cluster, proc in frames(data).events:
            if int(cluster) == self.cluster_id:
                self._tell(number, max(-1, int(proc)), event)

    def _tell(self, number: bytes, proc: int, event: bytes) -> None:
        at = event_time(event, self.near) or 0
        if number == statuses.CHIRP:
            told = event.partition(_PREFIX)[2]
            if told.startswith(_ERROR.removeprefix(_PREFIX)):
                self.last_errors.append(TaskError(at, proc, classad_value(told.partition(b": ")[2])))
        elif number in {statuses.SUBMITTED, statuses.CLUSTER_SUBMITTED}:
            self._add("submitted" if number == statuses.SUBMITTED else "cluster submitted", "", at, proc)
        elif number in _COUNTED:
            self._add(_COUNTED[number], _reason(number, event) if number in _WITH_REASON else "", at, proc)
        elif number in {statuses.PAUSED, statuses.RESUMED, statuses.CLUSTER_REMOVED}:
            first, *body = text_of(event).split("\n")
            self._add(_after_date(first), " ".join(" ".join(body).split()), at, proc)

    def _add(self, what: str, reason: str, at: int, proc: int) -> None:
        chapter = self.chapters.setdefault((what, group_of(reason)), Chapter(what, reason, at, at))
        chapter.last = at
        chapter.count += 1
        chapter.jobs.add(proc)


def _after_date(header: str) -> str:
    return header.split(" ", 4)[-1]


def _reason(number: bytes, event: bytes) -> str:
    if number == statuses.HELD:
        return statuses.hold_reason(event)
    match = _REASON.search(event) if number == b"004" else _FIRST_BODY_LINE.match(event)
    return text_of(match[1]) if match else ""
