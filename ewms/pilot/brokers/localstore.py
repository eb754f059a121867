"""The embedded broker's queues in one SQLite file; synchronous, for several processes of one host at once.

A message belongs to nobody or to one *owner*, a consumer. The owner holds a lock (`flock`) on a file of its own for
as long as it lives; the kernel takes the lock away when its process ends, however it ends, so that others see at
once, without clocks and across PID namespaces, that its messages may go to somebody else.

What was put survives the death of every process; after a power failure the last few messages may be missing (SQLite's
`synchronous=NORMAL`), which is good enough for development.
"""

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

FILE_NAME: Final = "broker.sqlite"
_OWNERS_DIR: Final = "consumers"
_INIT_LOCK: Final = "init.lock"
# How long one process may keep another one waiting for the file (s).
_BUSY_TIMEOUT: Final = 30.0

# Bodies have their own table because SQLite rewrites a whole row on each change.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    owner TEXT,
    returned INTEGER NOT NULL DEFAULT 0,
    message_id TEXT
);
CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue, owner, id);
CREATE INDEX IF NOT EXISTS messages_by_owner ON messages (owner);
CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


@attrs.frozen
class Message:
    """One message as it is handed to an owner."""

    row: int
    body: bytes = attrs.field(repr=False)
    message_id: str | None
    returned: int


@attrs.frozen
class Depth:
    """How many messages a queue holds."""

    ready: int = 0
    unacked: int = 0


class Owner:
    """A consumer's proof of life: the lock on its file."""

    def __init__(self, directory: Path) -> None:
        self.name = uuid.uuid4().hex
        self._path = directory / _OWNERS_DIR / self.name
        self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Give the name up; its messages must be released before."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)


class Store:
    """One process's view of the queues. Methods may be called from any thread, but only one at a time.

    Raises `sqlite3.Error` and `OSError`. `ready` has its own read connection and never waits for writers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / _OWNERS_DIR).mkdir(parents=True, exist_ok=True)
        # Switching a new file to WAL does not wait for others who do the same.
        with _locked(directory / _INIT_LOCK):
            self._writes = self._open()
            self._writes.execute("PRAGMA journal_mode = WAL")
            self._writes.execute("PRAGMA synchronous = NORMAL")
            self._writes.executescript(_SCHEMA)
        self._reads = self._open()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.directory / FILE_NAME, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )

    def close(self) -> None:
        """Close the file."""
        self._reads.close()
        self._writes.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writes.execute("BEGIN IMMEDIATE")
        try:
            yield self._writes
        except BaseException:
            self._writes.execute("ROLLBACK")
            raise
        self._writes.execute("COMMIT")

    def put(self, queue: str, messages: Iterable[tuple[bytes, str | None]]) -> None:
        """Append (body, message id) pairs, all or none."""
        with self._transaction() as db:
            for body, message_id in messages:
                row = db.execute(
                    "INSERT INTO messages (queue, message_id) VALUES (?, ?)", (queue, message_id)
                ).lastrowid
                db.execute("INSERT INTO bodies (id, body) VALUES (?, ?)", (row, body))

    def ready(self, queue: str) -> bool:
        """Whether somebody could claim a message."""
        found = self._reads.execute("SELECT 1 FROM messages WHERE queue = ? AND owner IS NULL LIMIT 1", (queue,))
        return bool(found.fetchall())

    def claim(self, queue: str, owner: str) -> Message | None:
        """Hand the oldest free message to `owner`."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT id, message_id, returned FROM messages WHERE queue = ? AND owner IS NULL ORDER BY id LIMIT 1",
                (queue,),
            ).fetchone()
            if found is None:
                return None
            row, message_id, returned = found
            db.execute("UPDATE messages SET owner = ? WHERE id = ?", (owner, row))
            (body,) = db.execute("SELECT body FROM bodies WHERE id = ?", (row,)).fetchone()
        return Message(row=row, body=body, message_id=message_id, returned=returned)

    def ack(self, row: int, owner: str) -> bool:
        """Forget a message; False: it is not `owner`'s any more."""
        with self._transaction() as db:
            if not db.execute("DELETE FROM messages WHERE id = ? AND owner = ?", (row, owner)).rowcount:
                return False
            db.execute("DELETE FROM bodies WHERE id = ?", (row,))
        return True

    def give_back(self, row: int, owner: str, *, count: bool) -> bool:
        """Free a message, counting the return or not; False: it is not `owner`'s any more."""
        changed = self._writes.execute(
            "UPDATE messages SET owner = NULL, returned = returned + ? WHERE id = ? AND owner = ?", (count, row, owner)
        )
        return bool(changed.rowcount)

    def release(self, owner: str, *, count: bool) -> int:
        """Free all that `owner` holds; returns how many that were."""
        changed = self._writes.execute(
            "UPDATE messages SET owner = NULL, returned = returned + ? WHERE owner = ?", (count, owner)
        )
        return changed.rowcount

    def release_the_dead(self, queue: str) -> int:
        """Free what consumers of `queue` held when their processes ended; returns how many messages that were."""
        owners = self._writes.execute(
            "SELECT DISTINCT owner FROM messages WHERE queue = ? AND owner IS NOT NULL", (queue,)
        ).fetchall()
        return sum(self._release_if_dead(owner) for (owner,) in owners)

    def _release_if_dead(self, owner: str) -> int:
        path = self.directory / _OWNERS_DIR / owner
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return self.release(owner, count=True)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        else:
            path.unlink(missing_ok=True)
            return self.release(owner, count=True)
        finally:
            os.close(fd)

    def depths(self) -> dict[str, Depth]:
        """All queues that hold messages."""
        rows = self._reads.execute("SELECT queue, COUNT(*), COUNT(owner) FROM messages GROUP BY queue").fetchall()
        return {queue: Depth(ready=total - owned, unacked=owned) for queue, total, owned in rows}

    def take_all(self, queue: str) -> list[Message]:
        """Remove and return every free message."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, body, message_id, returned FROM messages JOIN bodies USING (id)"
                " WHERE queue = ? AND owner IS NULL ORDER BY id",
                (queue,),
            ).fetchall()
            for row, *_ in rows:
                db.execute("DELETE FROM messages WHERE id = ?", (row,))
                db.execute("DELETE FROM bodies WHERE id = ?", (row,))
        return [Message(*row) for row in rows]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
