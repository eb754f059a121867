"""Which files of the job directory have had their time, and which of them are still needed (pure).

Age alone decides nothing about a log or a taskforce's directory: the schedd does. What a living cluster needs, and what
belongs to a start that is not settled yet, is kept however old it is.
"""

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Final

import attrs

from ewms.contract import DAY_LOG_SUFFIX, TASKFORCE_ATTRIBUTE, taskforce_dir_name
from ewms.tms.condor.base import Ad
from ewms.tms.entries import Entry

NEEDED_ATTRIBUTES: Final = ("ClusterId", TASKFORCE_ATTRIBUTE, "UserLog", "Iwd", "TransferInput", "Out", "Err")
"""Of the ad of each living cluster: what can name a file or a directory of ours."""
LOG_ARCHIVE_SUFFIX: Final = ".gz"
DIRECTORY_ARCHIVE_SUFFIX: Final = ".tar.gz"
RETIRED_SUFFIX: Final = ".archived"
DAMAGED_SUFFIX: Final = ".damaged"


class Kind(enum.Enum):
    """What a name in the job directory stands for."""

    LOG = "log"
    LOG_ARCHIVE = "log archive"
    DIRECTORY = "taskforce directory"
    DIRECTORY_ARCHIVE = "taskforce archive"
    LEFTOVER = "leftover"
    """Our own temporary file, or a directory that is in its archive already: a crash left it."""


class Verdict(enum.Enum):
    """What becomes of a file now."""

    KEEP = "keep"
    NEEDED = "needed"
    """Its time is over, but a living cluster or an unsettled start needs it."""
    ASK = "ask"
    """Its time is over if the WMS has no open taskforce in it."""
    ACT = "act"


_LOG: Final = r"\d{4}-\d{1,2}-\d{1,2}" + re.escape(DAY_LOG_SUFFIX)
_DIRECTORY: Final = re.escape(taskforce_dir_name("")) + r"[\w-]+"
_ARCHIVE: Final = rf"(?:{_LOG}\.gz|{_DIRECTORY}\.tar\.gz)"
_FILES: Final = {
    Kind.LOG: re.compile(_LOG),
    Kind.LOG_ARCHIVE: re.compile(rf"{_LOG}\.gz(?:\.damaged)?"),
    Kind.DIRECTORY_ARCHIVE: re.compile(rf"{_DIRECTORY}\.tar\.gz(?:\.damaged)?"),
    Kind.LEFTOVER: re.compile(rf"\.{_ARCHIVE}\.new"),
}
_DIRECTORIES: Final = {
    Kind.DIRECTORY: re.compile(_DIRECTORY),
    Kind.LEFTOVER: re.compile(rf"\.{_DIRECTORY}\.archived"),
}


@attrs.frozen
class Found:
    """One file or directory in the job directory."""

    name: str
    kind: Kind
    changed_at: float
    """Epoch s: the last change of a log, or of anything in a directory; of an archive, when it came to be."""


@attrs.frozen(kw_only=True)
class Expiries:
    """The five expiry settings, in s."""

    log_short: float
    log_long: float
    log_archive: float
    directory: float
    directory_archive: float


@attrs.frozen
class InUse:
    """What must not be touched: names of day logs, and every text that may name a taskforce's directory."""

    logs: frozenset[str]
    texts: frozenset[str]

    def needs(self, found: Found) -> bool:
        """Whether somebody needs this log or directory."""
        if found.kind is Kind.LOG:
            return found.name in self.logs
        return any(found.name in text for text in self.texts)


def kind_of(name: str, *, is_directory: bool) -> Kind | None:
    """What a name stands for; None for what is not ours to clean. No archive of ours passes for a log."""
    patterns = _DIRECTORIES if is_directory else _FILES
    return next((kind for kind, pattern in patterns.items() if pattern.fullmatch(name)), None)


def in_use(ads: Iterable[Ad], entries: Iterable[Entry], is_ours: Callable[[str], bool]) -> InUse:
    """What the schedd's living clusters and the starts that are not settled need.

    `is_ours` tells whether the path of a log lies in our job directory: two TMSs of one access point name their logs
    alike.
    """
    logs, texts = set(), set()
    for ad in ads:
        values = {name: value for name, value in ad.items() if isinstance(value, str) and value}
        path = _path(values)
        if path and is_ours(path):
            logs.add(path.rpartition("/")[2])
        if TASKFORCE_ATTRIBUTE in values:
            texts.add(taskforce_dir_name(values[TASKFORCE_ATTRIBUTE]))
        texts.update(value for value in values.values() if taskforce_dir_name("") in value)
    for entry in entries:
        if entry.is_unsettled:
            logs.add(entry.log_path.rpartition("/")[2])
            texts.add(taskforce_dir_name(entry.taskforce_uuid))
    return InUse(frozenset(logs), frozenset(texts))


def judge(found: Found, used: InUse, expiries: Expiries, now: float) -> Verdict:
    """What becomes of a file now (`now` in epoch s)."""
    age = now - found.changed_at
    if found.kind is Kind.LEFTOVER:
        return Verdict.ACT
    if age < _expiry(found.kind, expiries) or _is_of_today(found, now):
        return Verdict.KEEP
    if found.kind in (Kind.LOG, Kind.DIRECTORY) and used.needs(found):
        return Verdict.NEEDED
    if found.kind is Kind.LOG and age < expiries.log_long:
        return Verdict.ASK
    return Verdict.ACT


def sort_out(found: Iterable[Found], used: InUse, expiries: Expiries, now: float) -> Mapping[Verdict, list[Found]]:
    """Everything found, by what becomes of it."""
    by_verdict: dict[Verdict, list[Found]] = {each: [] for each in Verdict}
    for each in found:
        by_verdict[judge(each, used, expiries, now)].append(each)
    return by_verdict


def _expiry(kind: Kind, expiries: Expiries) -> float:
    return {
        Kind.LOG: expiries.log_short,
        Kind.LOG_ARCHIVE: expiries.log_archive,
        Kind.DIRECTORY: expiries.directory,
        Kind.DIRECTORY_ARCHIVE: expiries.directory_archive,
    }[kind]


def _is_of_today(found: Found, now: float) -> bool:
    """A log of this day (or of one to come): the next start may submit into it, whatever the expiries are."""
    if found.kind is not Kind.LOG:
        return False
    numbers = found.name.removesuffix(DAY_LOG_SUFFIX).split("-")
    try:
        return date(*map(int, numbers)) >= datetime.fromtimestamp(now, UTC).date()
    except ValueError:
        return False  # no such day: nobody will name a log so


def _path(values: Mapping[str, str]) -> str:
    path = values.get("UserLog", "")
    return path if not path or path.startswith("/") else f"{values.get('Iwd', '')}/{path}"
