"""What the stand-in remembers: JSON documents by kind, in memory and, if wanted, in one SQLite file."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from ewms.testing.wms.phases import Document

Kind = Literal["workflows", "task_directives", "taskforces", "mqprofiles"]

_ID_KEYS: Final[Mapping[Kind, str]] = {
    "workflows": "workflow_id",
    "task_directives": "task_id",
    "taskforces": "taskforce_uuid",
    "mqprofiles": "mqid",
}


class Store:
    """Every document by kind and id, in the order in which they were made; a save is atomic."""

    def __init__(self, db: Path | None = None) -> None:
        self._documents: dict[Kind, dict[str, Document]] = {kind: {} for kind in _ID_KEYS}
        self._connection = _open(db) if db else None
        if self._connection:
            for kind, text in self._connection.execute("SELECT kind, document FROM documents ORDER BY rowid"):
                self._remember(kind, json.loads(text))

    def all(self, kind: Kind) -> list[Document]:
        """Every document of this kind, oldest first."""
        return list(self._documents[kind].values())

    def get(self, kind: Kind, id_: str) -> Document | None:
        """One document, or None."""
        return self._documents[kind].get(id_)

    def save(self, changes: Iterable[tuple[Kind, Document]]) -> None:
        """Keep new and changed documents, all of them or none."""
        changes = list(changes)
        if self._connection:
            rows = [(kind, document[_ID_KEYS[kind]], json.dumps(document)) for kind, document in changes]
            with self._connection:
                self._connection.executemany(
                    "INSERT INTO documents VALUES (?, ?, ?) "
                    "ON CONFLICT (kind, id) DO UPDATE SET document = excluded.document",
                    rows,
                )
        for kind, document in changes:
            self._remember(kind, document)

    def close(self) -> None:
        """Close the file."""
        if self._connection:
            self._connection.close()

    def _remember(self, kind: Kind, document: Document) -> None:
        self._documents[kind][document[_ID_KEYS[kind]]] = document


def _open(db: Path) -> sqlite3.Connection:
    db.touch(mode=0o600)  # it holds queue tokens
    connection = sqlite3.connect(db)
    # Safe against the end of this process; a stand-in need not survive a power cut.
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS documents (kind TEXT, id TEXT, document TEXT, PRIMARY KEY (kind, id))"
    )
    return connection
