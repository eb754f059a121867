"""What the TMS did for each taskforce, on disk: one small JSON file each, atomic and synced, no secrets in it.

The order of a taskforce's life here: intended → submitted → confirmed → stopped → completed, or withdrawn. An intent
without a cluster id means that a submit may have happened: whoever finds one looks into queue, history and log first.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from ewms.tms.entries import Entry, parse, serialize
from ewms.tms.errors import LedgerDamaged
from ewms.tms.files import TROUBLES_OF_THE_MACHINE, write_atomically

log = structlog.stdlib.get_logger(__name__)

_CREATED = "created"


class Ledger:
    """The directory of entries. Small synchronous core; the async methods do the same in a thread."""

    def __init__(self, directory: Path) -> None:
        """Open, or make, the ledger in `directory`; raises OSError when that cannot be."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        created = directory / _CREATED
        if not created.exists():
            write_atomically(created, f"{time.time()}\n".encode())
        self.created_at = _created_at(created)
        """Epoch s; of an order older than this, the ledger may not know the whole story."""
        self._said_damaged: set[Path] = set()

    async def read(self, uuid: str) -> Entry | None:
        """The entry of `uuid`; one that cannot be read counts as an intent of which nothing more is known.

        Raises:
            OSError: no file can be read now; this one may be all right.
        """
        return await trio.to_thread.run_sync(self.read_now, uuid)

    async def peek(self, uuid: str) -> Entry | None:
        """As `read`, for who can do without: a disk that does not give it is told and not raised."""
        try:
            return await self.read(uuid)
        except OSError as error:
            log.error("ledger entry was not read", taskforce=uuid, error=str(error))
            return None

    async def write(self, entry: Entry) -> None:
        """Make `entry` the taskforce's entry, durably; raises OSError when it could not be."""
        await trio.to_thread.run_sync(self.write_now, entry)

    async def update(self, uuid: str, *, default: Entry | None = None, **changes: Any) -> None:
        """Change fields of an entry; without one (a cluster of today's TMS), of `default`, if that is given.

        A damaged entry gives way to a `default` that names a cluster: only as long as nobody else knows the cluster
        must it count as an intent. A disk that does not take it is told and not raised: the WMS and the schedd know
        the same.
        """
        try:
            entry = await self.read(uuid)
            if entry is None or (not entry.is_known and default is not None and default.cluster_id is not None):
                entry = default
            if entry is not None:
                await self.write(attrs.evolve(entry, **changes))
        except OSError as error:
            log.error("ledger entry was not written", taskforce=uuid, error=str(error))

    async def forget(self, uuid: str) -> None:
        """Remove an entry: nothing was submitted."""
        await trio.to_thread.run_sync(lambda: self._path(uuid).unlink(missing_ok=True))

    async def entries(self) -> list[Entry]:
        """Every entry; one that cannot be read is as in `read`, and keeps nobody from the others."""
        return await trio.to_thread.run_sync(lambda: list(self._all()))

    async def prune(self, before: float, *, at_most: int) -> int:
        """Forget what has been over since before this epoch s, at most so many at once; returns how many.

        Raises:
            OSError: an entry cannot be removed, or the directory not be read.
        """
        return await trio.to_thread.run_sync(self._prune_now, before, at_most)

    def _prune_now(self, before: float, at_most: int) -> int:
        old = (each for each in self._all() if each.over_at is not None and each.over_at < before)
        forgotten = 0
        for entry in itertools.islice(old, at_most):
            self._path(entry.taskforce_uuid).unlink(missing_ok=True)
            forgotten += 1
        return forgotten

    def read_now(self, uuid: str) -> Entry | None:
        """As `read`, without a thread."""
        path = self._path(uuid)
        try:
            return _own(uuid, path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, LedgerDamaged) as error:
            if isinstance(error, OSError) and error.errno in TROUBLES_OF_THE_MACHINE:
                raise
            if path not in self._said_damaged:
                self._said_damaged.add(path)
                log.error(
                    "ledger entry is damaged, looking everywhere for its cluster", file=str(path), error=str(error)
                )
            return _unknown(uuid)

    def write_now(self, entry: Entry) -> None:
        """As `write`, without a thread."""
        write_atomically(self._path(entry.taskforce_uuid), serialize(entry))

    def _all(self) -> Iterator[Entry]:
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = self.read_now(path.stem)
            except OSError as error:
                log.error("ledger entry cannot be read, taking it for an intent", file=str(path), error=str(error))
                entry = _unknown(path.stem)
            if entry is not None:
                yield entry

    def _path(self, uuid: str) -> Path:
        return self._directory / f"{uuid}.json"


def _own(uuid: str, content: bytes) -> Entry:
    """The entry in this taskforce's file; raises `LedgerDamaged`, also if it is another taskforce's."""
    entry = parse(content)
    if entry.taskforce_uuid != uuid:
        raise LedgerDamaged("it is of another taskforce")
    return entry


def _unknown(uuid: str) -> Entry:
    """What `Entry.is_known` denies."""
    return Entry(taskforce_uuid=uuid, log_path="", n_workers=0, intended_at=0)


def _created_at(path: Path) -> float:
    try:
        return float(path.read_text())
    except ValueError:
        return time.time()  # looks further back than needed, never less
