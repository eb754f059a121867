"""The classic job event log of HTCondor: bytes → events (pure).

An event is a header line `NNN (CLUSTER.PROC.000) DATE text`, body lines, and a line `...`. HTCondor writes each event
with one append; a full disk can leave a torn one, directly followed by the next header. So:

- only what lies before the last terminator is read: the rest may still be in the writing (`cut`);
- a header inside another event's text ends that event: it was torn, and reading goes on at the header;
- what has no header at all is damaged. Damaged runs are counted, never guessed at.

Most events of a log are quiet: sizes, transfers, and counters of pilots, from which nothing follows. They are counted,
and no object is made for them.

Reading has a short way for chunks that are provably clean (as many headers as terminators, each at its place), which
is what a log consists of, and a careful way for all others. Both give the same events on whatever both can read.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

import attrs

from ewms.contract import MAX_CHIRP_BYTES

TERMINATOR: Final = b"\n...\n"
_SUBPROC: Final = b".000) "  # in every header, exactly once: HTCondor has no other subproc
_CLUSTER: Final = rb"\d{3,18}+"
_PROC: Final = rb"-\d{1,2}|\d{3,18}+"
_KEY: Final = rb" \((" + _CLUSTER + rb")\.(" + _PROC + rb")\.000\) "
_HEADER: Final = re.compile(rb"([^\n]{3})" + _KEY)
_DATE: Final = rb"(?:\d{4}-\d\d-\d\d[ T]|\d\d/\d\d )\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)? "
_DATED: Final = re.compile(rb"(\d{3})" + _KEY + _DATE)
_END_LINE: Final = re.compile(rb"^\.\.\.\r?\n", re.MULTILINE)
_WHOLE_CHIRP: Final = re.compile(rb"008 \([^)]*\) " + _DATE + rb'\w+: "(?:[^"\\]|\\.)*"\s*')

# Only single characters are repeated without a way back: Python 3.11.2 (Debian 12) gets groups wrong there.
_QUIET_EVENT: Final = b"|".join(
    number + rb" \(" + _CLUSTER + rb"\.(?:" + _PROC + rb")\.000\) " + text
    for number, text in (
        # A chirped text ends with its quote, unless it was too long for its line; numbers have none.
        (b"008", rb'[^\n]{0,%d}+\n(?<!"\n)' % (MAX_CHIRP_BYTES - 100)),
        (b"006", rb"[^\n]*+\n(?:\t[^\n]*+\n){0,4}"),
        (b"040", rb"[^\n]*+\n(?:\t[^\n]*+\n){0,4}"),
    )
)
_QUIET: Final = re.compile(_QUIET_EVENT)
_NEXT: Final = re.compile(
    rb"(?:(?:" + _QUIET_EVENT + rb")\.\.\.\n){0,100}"  # a run of quiet ones, and then
    rb"((\d{3})" + _KEY + rb"[^\n]*+(?:\n(?!\.\.\.\n)[^\n]*+)*(?=\n\.\.\.\n)|[\s\S]*)"  # one that tells, or the rest
    rb"(?:\n\.\.\.\n)?"
)

_FIRST_WORDS: Final = {
    b"000": b"Job submitted from host: ",
    b"001": b"Job executing on host: ",
    b"004": b"Job was evicted.",
    b"005": b"Job terminated.",
    b"006": b"Image size of job updated: ",
    b"007": b"Shadow exception!",
    b"008": b"",
    b"009": b"Job was aborted.",
    b"010": b"Job was suspended.",
    b"011": b"Job was unsuspended.",
    b"012": b"Job was held.",
    b"013": b"Job was released.",
    b"021": b"",
    b"022": b"Job disconnected",
    b"023": b"Job reconnected",
    b"024": b"Job reconnection failed",
    b"028": b"Job ad information event triggered.",
    b"033": b"",
    b"035": b"Cluster submitted from host: ",
    b"036": b"Cluster removed",
    b"037": b"Job Materialization Paused",
    b"038": b"Job Materialization Resumed",
    b"040": b"",
}
"""How an event's text begins; in the middle of a line only this makes a header credible."""


Event = tuple[bytes, bytes, bytes, bytes]
"""An event's text from its header on, without its terminator; its number (`001`), its cluster and its proc.

They are numbers, the proc negative for an event of the whole cluster.
"""


@attrs.frozen
class Frames:
    """The events of some bytes."""

    events: Sequence[Event]
    """Those that are not quiet, in their order (and now and then one that is)."""
    count: int
    """Of all events."""
    damaged: int
    """Torn events and runs of bytes that are no event."""


def cut(data: bytes) -> int:
    """How many of these bytes are whole events: up to the end of the last terminator line, or 0."""
    end = data.rfind(TERMINATOR)
    windows = data.rfind(b"\n...\r\n", max(end, 0))
    if windows > end:
        return windows + 6
    if end >= 0:
        return end + 5
    return 4 if data.startswith(b"...\n") else 0


def frames(data: bytes) -> Frames:
    """The events in whole events' bytes (what `cut` gave)."""
    if not data:
        return Frames((), 0, 0)
    return _clean(data) or _careful(data)


def _clean(data: bytes) -> Frames | None:
    count = data.count(TERMINATOR)
    # With a header at the start of each event, which `_NEXT` sees to: no event has a second header in it.
    if b"\r" in data or data.count(_SUBPROC) != count:
        return None
    events = _NEXT.findall(data)
    # The end is found as an event without text, perhaps twice (behind quiet ones); a rest is a text without a number.
    while events and not events[-1][0]:
        del events[-1]
    if events and not events[-1][1]:
        return None
    return Frames(events, count, 0)


def _careful(data: bytes) -> Frames:
    events: list[Event] = []
    count = damaged = 0
    for block in _END_LINE.split(data):
        text = block.replace(b"\r\n", b"\n").removesuffix(b"\n")
        if not text:
            continue
        starts = _headers(text)
        if not starts:
            damaged += 1
            continue
        # Before the first header: bytes that are no event. Before each further one: a torn event.
        damaged += (starts[0] > 0) + len(starts) - 1
        count += 1
        event = text[starts[-1] :]
        header = _HEADER.match(event)
        assert header is not None
        if not _QUIET.fullmatch(event + b"\n"):
            events.append((event, header[1], header[2], header[3]))
    return Frames(events, count, damaged)


def _headers(block: bytes) -> list[int]:
    """Where events begin in what lies between two terminators: one place if it is sound."""
    starts = [0] if _HEADER.match(block) else []
    if starts and _WHOLE_CHIRP.fullmatch(block):
        return starts  # a pilot may quote a log line in its error text
    for match in _DATED.finditer(block, 1):
        at_line_start = block[match.start() - 1] == 0x0A
        words = _FIRST_WORDS.get(match[1])
        if at_line_start or (words is not None and block.startswith(words, match.end())):
            starts.append(match.start())
    return starts


# --- what stands in an event ---

_SECONDS: Final = {b":%02d" % second: second for second in range(60)}
_WHEN: Final = re.compile(rb"\d{3} \([^)]*\) ((?:\d{4}-\d\d-\d\d[ T]|\d\d/\d\d )\d\d:\d\d):([0-5]\d)(?:\.\d+)?(Z)?")
_MINUTE: Final = re.compile(rb"(?:(\d{4})-)?(\d\d).(\d\d)[ T](\d\d):(\d\d)")


def event_time(event: bytes, near: date) -> int | None:
    """When the event was written, in epoch s; None if its date makes no sense.

    A date without `Z` is local time, as HTCondor writes it by default (an offset such as +02:00 is ignored by
    HTCondor's own reader, too). A legacy date has no year: it is taken from `near`, the day the log began.
    """
    # Most dates are `2026-11-21 19:17:05Z`, or without the Z: they need no regular expression.
    start = event.find(b") ") + 2
    second, after = _SECONDS.get(event[start + 16 : start + 19]), event[start + 19 : start + 20]
    if second is None or event[start + 4 : start + 8 : 3] != b"--" or after not in b"Z ":
        return _odd_time(event, near)
    begun = _minute(event[start : start + 16], after == b"Z", near)
    return None if begun is None else begun + second


def _odd_time(event: bytes, near: date) -> int | None:
    match = _WHEN.match(event)
    if match is None:
        return None
    minute, second, utc = match.groups()
    begun = _minute(minute, utc is not None, near)
    return None if begun is None else begun + int(second)


@lru_cache(maxsize=4096)  # many events share a minute, and dates are slow to read
def _minute(text: bytes, is_utc: bool, near: date) -> int | None:
    match = _MINUTE.fullmatch(text)
    if match is None:
        return None
    month, day, hour, minute = map(int, match.groups()[1:])
    year = int(match[1]) if match[1] else near.year + ((month, day) < (near.month, near.day))
    try:
        return int(datetime(year, month, day, hour, minute, tzinfo=UTC if is_utc else None).timestamp())
    except (ValueError, OverflowError):
        return None


_UUID_NOTE: Final = re.compile(
    rb'(?m)^[ \t]*(?:\[ .*?)?\bEWMSTaskforceUUID ?= ?(?:"([^"\n]{1,200})"|([^\s"\]]{1,200}))'
)


def taskforce_named(event: bytes) -> str | None:
    """The taskforce's UUID in a submit event's notes or in a job ad event (028), in any form that a TMS writes.

    `[ EWMSTaskforceUUID = "TF-1" ]`, `EWMSTaskforceUUID = "TF-1"` and `EWMSTaskforceUUID=TF-1`.
    """
    match = _UUID_NOTE.search(event)
    return None if match is None else text_of(match[1] or match[2])


_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


def classad_value(raw: bytes) -> str:
    """The text of a ClassAd literal as chirp wrote it; a string that was cut counts as far as it goes."""
    text = text_of(raw.strip())
    match = _STRING.match(text)
    return text if match is None else _ESCAPED.sub(lambda each: _ESCAPES.get(each[1], each[1]), match[1])


def text_of(raw: bytes) -> str:
    """Log bytes as text; what is not UTF-8 is replaced, and so is NUL, which JSON stores refuse."""
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")
