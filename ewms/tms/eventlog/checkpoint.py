"""A log's position and tallies in one small file, written atomically: a restart reads only what is new.

It is a cache: without it, or with one that cannot be used, a full read of the log gives the same state. So it is not
forced to the disk: after a power cut either the old or the new one is there, or none that can be read. Its first line
has a hash of the rest: a damaged one must not pass for statuses.
"""

import base64
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Final

import attrs

from ewms.tms.eventlog.reader import Position
from ewms.tms.eventlog.tally import Tally
from ewms.tms.files import write_atomically
from ewms.tms.sites import SiteTally

FORMAT: Final = 6
_SUFFIX: Final = ".checkpoint.json"


@attrs.frozen
class Checkpoint:
    """A log as far as it was read."""

    position: Position
    tally: Tally
    sites: SiteTally


def checkpoint_path(state_dir: Path, log_name: str) -> Path:
    """Where a log's checkpoint lies."""
    return state_dir / f"{log_name}{_SUFFIX}"


def known_logs(state_dir: Path) -> frozenset[str]:
    """Logs that there is a checkpoint of, whether they are still there or not."""
    return frozenset(
        path.name.removesuffix(_SUFFIX) for path in state_dir.glob(f"*{_SUFFIX}") if not path.name.startswith(".")
    )


def dump(checkpoint: Checkpoint) -> str:
    """The text of a checkpoint."""
    position = checkpoint.position
    where = {
        "offset": position.offset,
        "inode": position.inode,
        "head": base64.b64encode(position.head).decode(),
        "tail": base64.b64encode(position.tail).decode(),
        "again": position.again,
    }
    saved = {
        "position": where,
        "tally": checkpoint.tally.dump(),
        "sites": checkpoint.sites.dump(),
    }
    text = json.dumps(saved, separators=(",", ":"))
    return f"{json.dumps({'format': FORMAT, 'sha256': _hash(text)})}\n{text}"


def save(path: Path, text: str) -> None:
    """Write a checkpoint in one step; raises OSError and leaves the old one then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, text.encode(), 0o600, durable=False)


def load(path: Path, near: date) -> Checkpoint | None:
    """A checkpoint, or None if there is none; raises ValueError if it cannot be used, OSError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        first, _, rest = text.partition("\n")
        about = json.loads(first)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, not {FORMAT}")  # noqa: TRY301  one reason of many
        if about["sha256"] != _hash(rest):
            raise ValueError("damaged")  # noqa: TRY301
        saved = json.loads(rest)
        where = saved["position"]
        head, tail = base64.b64decode(where["head"]), base64.b64decode(where["tail"])
        position = Position(int(where["offset"]), int(where["inode"]), head, tail, int(where["again"]))
        return Checkpoint(position, Tally.load(saved["tally"], near), SiteTally.load(saved["sites"]))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
