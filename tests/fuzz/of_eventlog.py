"""The log reader: whatever happened to a log, nothing is raised, nothing beside the damage is lost or changed."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.checkpoint import Checkpoint
from ewms.tms.eventlog.format import _QUIET, _careful, _clean, cut, frames
from ewms.tms.eventlog.reader import Position, read_on
from ewms.tms.eventlog.story import Story
from ewms.tms.eventlog.tally import Tally
from ewms.tms.sites import SiteTally
from tests.fuzz.source import Source
from tests.fuzz.target import Target

DAY: Final = date(2026, 11, 21)
_DATA: Final = Path(__file__).parents[1] / "data" / "jel"
_LONGEST: Final = 6000
_END: Final = b"\n...\n"
_PARTS: Final = (_END, b"...\n", b"\n", b"\r\n", b"\t", b"008 (036.001.000) 2026-11-21 21:10:27 x", b'"', b"\0", b"(")


@lru_cache
def logs() -> list[bytes]:
    """The captured logs, without the longest ones."""
    found = [path.read_bytes() for path in sorted(_DATA.glob("*.jel"))]
    return [each for each in found if len(each) <= _LONGEST]


# --- any bytes ---


def any_bytes(data: bytes) -> None:
    """Whatever a file holds is read; both ways of reading agree; what is known of it comes back from a checkpoint."""
    whole = data[: cut(data)]
    short = _clean(whole) if whole else None
    if short is not None:
        careful = _careful(whole)
        told = [each for each in short.events if not _is_quiet(each[0])]
        assert (told, short.count, short.damaged) == (careful.events, careful.count, careful.damaged)
    tally, sites = Tally(DAY), SiteTally()
    sites.take(tally.feed(whole), DAY)
    _look_at(tally)
    for cluster in list(tally.clusters)[:3]:
        Story(cluster, DAY).feed(whole)
    assert _state(*_restarted(tally, sites)) == _state(tally, sites)


def _is_quiet(event: bytes) -> bool:
    return _QUIET.fullmatch(event + b"\n") is not None


def _look_at(tally: Tally) -> None:
    for cluster in tally.clusters.values():
        for n_workers in (None, 3):
            found = cluster.compound_statuses(n_workers)
            assert all(count > 0 for by_pilot in found.values() for count in by_pilot.values())
            cluster.completed_at(n_workers)
        assert all(count > 0 for count in cluster.top_task_errors().values())
        json.dumps([cluster.compound_statuses(None), cluster.top_task_errors()]).encode()


def _state(tally: Tally, sites: SiteTally) -> Any:
    return json.loads(json.dumps([tally.dump(), sites.dump()]))


def _restarted(tally: Tally, sites: SiteTally) -> tuple[Tally, SiteTally]:
    """Both as a checkpoint gives them back."""
    saved = _state(tally, sites)
    return Tally.load(saved[0], DAY), SiteTally.load(saved[1])


# --- damage ---


@attrs.frozen
class Edit:
    """Bytes from `begin` to `end` became others."""

    begin: int
    end: int
    new: bytes

    def touches(self, begin: int, end: int) -> bool:
        """Whether anything inside became other bytes."""
        return self.begin < end and self.end > begin


def edits(source: Source, log: bytes) -> list[Edit]:
    """Some places of a log that were damaged, in their order."""
    found: list[Edit] = []
    at = 0
    for _ in range(source.integer(1, 4)):
        begin = min(len(log), at + source.integer(0, 2000))
        end = min(len(log), begin + source.choice((0, 0, 1, 5, 40, 300)))
        found.append(Edit(begin, end, _new(source, log)))
        at = end + 1
    return found


def _new(source: Source, log: bytes) -> bytes:
    match source.integer(0, 3):
        case 0:
            return b""
        case 1:
            return source.blob(60)
        case 2:
            return source.choice(_PARTS)
        case _:
            begin = source.integer(0, len(log))
            return log[begin : begin + source.integer(0, 400)]


def apply(log: bytes, changes: Iterable[Edit]) -> bytes:
    """The damaged log."""
    made, at = b"", 0
    for edit in changes:
        made += log[at : edit.begin] + edit.new
        at = edit.end
    return made + log[at:]


def spans(log: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each event lies with its own terminator and the one before it, and its text."""
    at = 0
    for text in log.split(_END)[:-1]:
        yield at - len(_END), at + len(text) + len(_END), text
        at += len(text) + len(_END)


def damage(data: bytes) -> None:
    """What lies between two whole terminators is found as it was, and clusters that no damage met are as they were."""
    source = Source(data)
    log = source.choice(logs()) + source.choice(logs())
    changes = edits(source, log)
    damaged = apply(log, changes)
    every = list(spans(log))
    # Where nothing was taken, what was put in counts at its place; directly behind a terminator is inside.
    intact = [not any(_hits(edit, begin, end) for edit in changes) for begin, end, _ in every]
    whole = damaged[: cut(damaged)]
    found = [each for each in frames(whole).events if not _is_quiet(each[0])]
    expected = [text for (*_, text), safe in zip(every, intact, strict=True) if safe and not _is_quiet(text)]
    others = _without(found, expected)
    clean, after = Tally(DAY), Tally(DAY)
    clean.feed(log)
    after.feed(whole)
    met = {int(cluster) for _, _, cluster, _ in others} | _clusters(
        text for (*_, text), safe in zip(every, intact, strict=True) if not safe
    )
    for number, cluster in clean.clusters.items():
        if number not in met:
            assert after.clusters[number].dump() == cluster.dump(), f"cluster {number} was not met by the damage"


def _hits(edit: Edit, begin: int, end: int) -> bool:
    if edit.begin == edit.end:
        return begin < edit.begin < end if edit.new else False
    return edit.touches(begin, end)


def _clusters(texts: Iterable[bytes]) -> set[int]:
    return {int(event[2]) for text in texts for event in frames(text + _END).events} | {
        int(number) for text in texts if (number := text.partition(b"(")[2].partition(b".")[0]).isdigit()
    }


def _without(found: list[Any], expected: list[bytes]) -> list[Any]:
    """The events that were found besides; all expected ones must be there, in their order."""
    others, left = [], iter(expected)
    wanted = next(left, None)
    for event in found:
        if wanted is not None and event[0] == wanted:
            wanted = next(left, None)
        else:
            others.append(event)
    assert wanted is None, f"lost beside the damage: {wanted!r}"
    return others


# --- cuts and restarts ---


def restarts(data: bytes) -> None:
    """A log that grows anyhow, read in any pieces, with a restart anywhere, is what one pass over it gives."""
    source = Source(data)
    log = source.choice(logs()) + source.choice(logs())
    if source.chance():
        log = apply(log, edits(source, log))
    whole, whole_sites = Tally(DAY), SiteTally()
    whole_sites.take(whole.feed(log[: cut(log)]), DAY)
    with tempfile.TemporaryDirectory(prefix="ewms-fuzz-") as directory:
        path, saved = Path(directory, "log"), Path(directory, "checkpoint")
        path.touch()
        known = Checkpoint(Position(), Tally(DAY), SiteTally())
        for _ in range(source.integer(0, 5)):
            _grow(path, log, source.integer(0, 2000))
            known = _read_on(path, known, source.choice((16, 100, 1000, 1 << 18)))
            if source.chance():
                checkpoint.save(saved, checkpoint.dump(known))
                again = checkpoint.load(saved, DAY)
                assert again is not None
                known = again
        _grow(path, log, len(log))
        known = _read_on(path, known, 1 << 18)
    assert _state(known.tally, known.sites) == _state(whole, whole_sites)


def _grow(path: Path, log: bytes, size: int) -> None:
    with path.open("ab") as file:
        file.write(log[os.fstat(file.fileno()).st_size :][:size])


def _read_on(path: Path, known: Checkpoint, batch: int) -> Checkpoint:
    position, more = known.position, True
    while more:
        piece = read_on(path, position, batch)
        assert (piece.replaced, piece.skipped) == (None, 0)
        known.sites.take(known.tally.feed(piece.data), DAY)
        position, more = piece.position, piece.more
    return Checkpoint(position, known.tally, known.sites)


def _choices() -> Iterator[bytes]:
    """Some ways through the targets that choose: the logs in turn, then whatever."""
    for number in range(len(logs())):
        yield bytes([number, (number * 7 + 3) % 256, *range(number, number + 60)])


TARGETS: Final = (
    Target("log-bytes", "job event logs of any bytes", any_bytes, logs),
    Target("log-damage", "captured job event logs with damage", damage, _choices),
    Target("log-restarts", "captured job event logs, growing, with restarts", restarts, _choices),
)
