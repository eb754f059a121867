"""The operator's file of sites to avoid (`TMS_EXCLUDED_SITES_FILE`), read at the start and again on SIGHUP.

    # One site a line, besides those of TMS_EXCLUDED_GLIDEIN_SITES and TMS_EXCLUDED_OSG_SITES.
    GLIDEIN_Site = Kansas State University
    OSG_SITE_NAME = Wichita State University
    Machine = broken.example.org

A file that cannot be read as this is told, with every wrong line, and the sites that were known before stay. Clusters
that are in the queue already keep the requirements that they have.
"""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.tms.errors import OrderRefused, SettingWrong, SetupError
from ewms.tms.submit_language import checked

log = structlog.stdlib.get_logger(__name__)

_ATTRIBUTES: Final = {name.lower(): name for name in ("GLIDEIN_Site", "OSG_SITE_NAME", "Machine")}
_MAX_BYTES: Final = 2**20

Avoided = tuple[str, str]
"""A machine attribute and the value that a worker's machine must not have."""


class SiteFileError(Exception):
    """The file is not what it should be; `problems` has one line for each wrong line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class SiteFileUnread(SiteFileError):
    """The file cannot be opened or read, which may pass."""


def parse(text: str) -> tuple[Avoided, ...]:
    """The sites of a file, without repetitions; raises `SiteFileError` (pure)."""
    found: dict[Avoided, None] = {}
    problems: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            found[_parse_line(line)] = None
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise SiteFileError(problems)
    return tuple(found)


def _parse_line(line: str) -> Avoided:
    name, equals, value = (part.strip() for part in line.partition("="))
    attribute = _ATTRIBUTES.get(name.lower())
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not equals or attribute is None or not value:
        raise ValueError(f"{line[:80]!r} is not ATTRIBUTE = NAME with one of: {', '.join(_ATTRIBUTES.values())}")
    try:
        return attribute, checked(attribute, value)
    except OrderRefused as refusal:
        raise ValueError(str(refusal)) from None


def read(path: Path) -> tuple[Avoided, ...]:
    """The sites of the file; raises `SiteFileError` when it cannot be read, or read as that."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SiteFileError([f"is larger than {_MAX_BYTES} bytes"])
        return parse(content.decode())
    except OSError as error:
        raise SiteFileUnread([error.strerror or str(error)]) from error
    except UnicodeDecodeError as error:
        raise SiteFileError([f"is not UTF-8: {error.reason} at byte {error.start}"]) from error


@attrs.define
class SiteFile:
    """What the file said when it was last read well; without a path, nothing."""

    path: Path | None = None
    avoided: tuple[Avoided, ...] = ()

    async def load(self) -> None:
        """Read it at the start; raises `SetupError`, as `SettingWrong` where it says something wrong."""
        if self.path is None:
            return
        try:
            self.avoided = await trio.to_thread.run_sync(read, self.path)
        except SiteFileError as error:
            kind = SetupError if isinstance(error, SiteFileUnread) else SettingWrong
            raise kind(f"TMS_EXCLUDED_SITES_FILE: {self.path}: {error}") from error
        log.info("excluded sites read", file=str(self.path), sites=len(self.avoided))

    async def reload(self) -> None:
        """Read it again; what is wrong is told, and the sites known so far stay."""
        if self.path is None:
            log.info("hangup signal: TMS_EXCLUDED_SITES_FILE is not set, nothing to read again")
            return
        before = set(self.avoided)
        try:
            self.avoided = await trio.to_thread.run_sync(read, self.path)
        except SiteFileError as error:
            log.error(
                "excluded sites cannot be read again, keeping those known so far",
                file=str(self.path),
                error=str(error),
                sites=len(before),
            )
            return
        log.info(
            "excluded sites read again",
            file=str(self.path),
            sites=len(self.avoided),
            added=_named(set(self.avoided) - before),
            gone=_named(before - set(self.avoided)),
        )


async def reload_on_hangup(
    file: SiteFile, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Read the file again at every SIGHUP, for ever."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            await file.reload()
    raise AssertionError("signals never end")


def _named(sites: Iterable[Avoided]) -> list[str]:
    return sorted(f"{attribute} = {name}" for attribute, name in sites)
