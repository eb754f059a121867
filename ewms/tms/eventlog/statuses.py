"""The one table: what an event of the job event log does to a job (pure)."""

import re
from enum import StrEnum
from typing import Final, NamedTuple

import attrs

from ewms.tms.eventlog.format import text_of


class JobStatus(StrEnum):
    """A job's status as the WMS sees it; a held job's status is `HELD: reason` instead of `HELD`."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    HELD = "HELD"
    SUSPENDED = "SUSPENDED"
    REMOVED = "REMOVED"


ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.REMOVED})
NO_PILOT_STATUS: Final = "null"
"""What the WMS calls the pilot status of a job without one."""


class JobState(NamedTuple):
    """What is known of a job: its status (`JobStatus` or `HELD: …`) and its pilot's."""

    job: str
    pilot: str | None


@attrs.frozen
class Effect:
    """The status that an event gives to a job, and whether it ends a run (pilot status and error are gone then)."""

    status: JobStatus
    new_run: bool = False


SUBMITTED: Final = b"000"
CHIRP: Final = b"008"
REMOVED: Final = b"009"
HELD: Final = b"012"
AD: Final = b"028"
CLUSTER_SUBMITTED: Final = b"035"
CLUSTER_REMOVED: Final = b"036"
PAUSED: Final = b"037"
RESUMED: Final = b"038"

EFFECTS: Final = {
    b"001": Effect(JobStatus.RUNNING, new_run=True),  # executing; may come again without an eviction
    b"004": Effect(JobStatus.IDLE, new_run=True),  # evicted, or terminated and requeued
    b"005": Effect(JobStatus.COMPLETED),  # terminated
    b"007": Effect(JobStatus.IDLE, new_run=True),  # shadow exception
    REMOVED: Effect(JobStatus.REMOVED),  # aborted
    b"010": Effect(JobStatus.SUSPENDED),
    b"011": Effect(JobStatus.RUNNING),  # unsuspended
    b"013": Effect(JobStatus.IDLE, new_run=True),  # released
    b"024": Effect(JobStatus.IDLE, new_run=True),  # reconnection failed
}
"""Events whose effect is in their number alone. Besides: 000 makes a job known as IDLE (it may come after 001, and then
does nothing), 012 holds it (`held_status`), 008 carries the pilot's status and error. 021, 022 and 023 change nothing:
a disconnected job still runs."""

NEW_RUN: Final = frozenset(number for number, effect in EFFECTS.items() if effect.new_run)
SPECIAL: Final = frozenset({SUBMITTED, HELD, AD, CLUSTER_SUBMITTED, CLUSTER_REMOVED, PAUSED, RESUMED})
NO_EFFECT: Final = frozenset(b"%03d" % number for number in range(200)) - EFFECTS.keys() - SPECIAL - {CHIRP}
"""Known numbers that change nothing, and those that HTCondor may come to use."""


def after(effect: Effect, before: JobState | None) -> JobState:
    """A job's state after an event; before its first event a job has none."""
    return JobState(effect.status, None if effect.new_run or before is None else before.pilot)


def with_pilot_status(status: str, before: JobState | None) -> JobState:
    """A job's state after its pilot told its status."""
    return JobState(JobStatus.IDLE if before is None else before.job, status)


# --- holds ---

_HOLD_WORDS: Final = {
    1: "held by its user",
    2: "Globus reported an error",
    3: "the job's own policy",
    4: "the credential is invalid",
    5: "the job's own policy is undefined",
    6: "the executable could not be started",
    7: "the standard output file could not be opened",
    8: "the standard input file could not be opened",
    9: "the standard output stream could not be opened",
    10: "the standard input stream could not be opened",
    11: "an invalid answer to a file transfer",
    12: "the output files could not be transferred",
    13: "the input files could not be transferred",
    14: "the initial working directory cannot be used",
    15: "submitted on hold",
    16: "input files are being spooled",
    17: "job and shadow do not fit",
    18: "a file transfer was not allowed to go ahead",
    19: "the job's prepare hook failed",
    20: "the deferred execution time was missed",
    21: "held by the execution point",
    22: "the job event log cannot be written",
    23: "the user's account cannot be accessed",
    24: "no compatible shadow",
    25: "the cron settings are invalid",
    26: "the access point's policy",
    27: "the access point's policy is undefined",
    32: "the input files are too large",
    33: "the output files are too large",
    34: "more memory or disk used than requested",
    35: "the container image is invalid",
    36: "the checkpoint failed",
    43: "the pre-script failed",
    44: "the post-script failed",
    45: "the container runtime's test failed",
    46: "the job took longer than allowed",
    47: "the job executed longer than allowed",
    48: "the shadow's prepare hook failed",
}

_HOLD: Final = re.compile(rb"[^\n]*\n(?:\t(?P<reason>[^\n]*)\n?)?(?:\tCode (?P<code>-?\d{1,9}) Subcode -?\d+)?")
_CODE_ONLY: Final = re.compile(r"Code (-?\d{1,9}) Subcode -?\d+")
_NO_REASON: Final = ("", "Reason unspecified")


def hold_reason(event: bytes) -> str:
    """Why a job was held, in one line: the words for the hold code and HTCondor's own reason, where given."""
    match = _HOLD.match(event + b"\n")
    reason = text_of(match["reason"] or b"").strip() if match else ""
    code = int(match["code"]) if match and match["code"] else None
    if alone := _CODE_ONLY.fullmatch(reason):
        reason, code = "", int(alone[1])
    return hold_words(code, reason)


def hold_words(code: int | None, reason: str) -> str:
    """A hold code and HTCondor's reason as one line of text."""
    words = [] if code is None else [_HOLD_WORDS.get(code, f"hold code {code}")]
    if reason not in _NO_REASON:
        words.append(reason)
    return ": ".join(words) or "no reason given"
