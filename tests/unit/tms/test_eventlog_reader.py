"""Reading a growing file, knowing it again, and checkpoints."""

import os
from datetime import date
from pathlib import Path

import pytest

from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.checkpoint import Checkpoint
from ewms.tms.eventlog.format import cut, frames
from ewms.tms.eventlog.reader import LONGEST_EVENT, Position, read_on
from ewms.tms.eventlog.tally import Tally
from ewms.tms.sites import SiteTally

DAY = date(2026, 11, 21)
LOG = (Path(__file__).parents[2] / "data" / "jel" / "factory-complete.jel").read_bytes()


def read_all(path: Path, position: Position, batch: int) -> tuple[bytes, Position]:
    data, more = b"", True
    while more:
        piece = read_on(path, position, batch)
        assert piece.replaced is None
        data, position, more = data + piece.data, piece.position, piece.more
    return data, position


@pytest.mark.parametrize("batch", [16, 1000, 4096, 1 << 20])
def test_any_batch_gives_all_events_even_longer_ones(tmp_path: Path, batch: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(LOG)
    data, position = read_all(path, Position(), batch)
    assert (data, position.offset) == (LOG, len(LOG))


def test_a_partial_event_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = cut(LOG[:3000])
    path.write_bytes(LOG[:3000])
    data, position = read_all(path, Position(), 1 << 20)
    assert data == LOG[:whole]
    path.write_bytes(LOG)
    assert read_all(path, position, 1 << 20)[0] == LOG[whole:]


@pytest.mark.parametrize("change", ["shrunk", "cut, and grown since", "other inode", "other first bytes"])
def test_another_file_is_read_from_its_beginning(tmp_path: Path, change: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(LOG)
    _, position = read_all(path, Position(), 1 << 20)
    new = LOG.replace(b"(036.", b"(037.")
    if change == "shrunk":
        new = LOG[: cut(LOG[:3000])]
        os.truncate(path, len(new))
    elif change == "cut, and grown since":
        new = LOG[: cut(LOG[:3000])] + LOG[cut(LOG[:5000]) :] + LOG
        path.write_bytes(new)  # the same inode, and the same first bytes
    elif change == "other inode":
        (tmp_path / "new").write_bytes(new)
        (tmp_path / "new").replace(path)
    else:
        with path.open("r+b") as file:
            file.write(new)
    piece = read_on(path, position)
    assert piece.replaced is not None
    assert (piece.data, piece.again) == (new, True)
    with path.open("ab") as file:
        file.write(LOG)
    following = read_on(path, piece.position)
    assert (following.data, following.replaced) == (LOG, None)
    # As far as the first reading came, it is read on top.
    assert following.again is (len(new) < len(LOG))


def test_what_was_read_before_is_known_as_such_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LOG)
    _, position = read_all(path, Position(), 1000)
    os.truncate(path, 0)
    piece = read_on(path, position)  # before the first event is there again
    assert (piece.data, piece.replaced is not None) == (b"", True)
    path.write_bytes(LOG + LOG)
    told = []
    while piece.position.offset < 2 * len(LOG):
        piece = read_on(path, piece.position, 1000)
        told += [piece.again] * len(piece.data)
    assert told.index(False) >= len(LOG)
    assert told.index(False) < len(LOG) + 4096
    assert told == sorted(told, reverse=True)


def test_endless_garbage_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(LONGEST_EVENT + 100)
        file.seek(0, os.SEEK_END)
        file.write(b"\n...\n" + LOG)
    piece = read_on(path, Position())
    assert (piece.data, piece.more, piece.skipped > 0) == (b"", True, True)
    data, _ = read_all(path, piece.position, 1 << 20)
    tally = Tally(DAY)
    tally.feed(data)
    assert (tally.events, tally.damaged) == (44, 1)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    tally = Tally(DAY)
    tally.feed(LOG)
    position = Position(12, 34, b"\x00head", b"tail\xff", 99)
    path = checkpoint.checkpoint_path(tmp_path / "state", "2026-11-21.tms.jel")
    assert checkpoint.load(path, DAY) is None
    sites = SiteTally()
    sites.take(frames(LOG), DAY)
    checkpoint.save(path, checkpoint.dump(Checkpoint(position, tally, sites)))
    loaded = checkpoint.load(path, DAY)
    assert loaded is not None
    assert loaded.position == position
    assert loaded.tally.dump() == tally.dump()
    assert loaded.tally.changed == {36}
    assert loaded.sites.dump() == sites.dump()
    assert sites.dump()["ended"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert checkpoint.known_logs(path.parent) == {"2026-11-21.tms.jel"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format":0}', f'{{"format":{checkpoint.FORMAT},"position":{{}}}}', "\x00" * 50]
)
def test_an_unusable_checkpoint_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c"
    path.write_text(text)
    with pytest.raises(ValueError, match="Error"):
        checkpoint.load(path, DAY)


def test_a_checkpoint_with_a_changed_byte_is_not_believed(tmp_path: Path) -> None:
    """What it says would be told to the WMS."""
    path, tally = tmp_path / "c", Tally(DAY)
    tally.feed(LOG)
    whole = checkpoint.dump(Checkpoint(Position(12, 34, b"head"), tally, SiteTally()))
    for place in range(0, len(whole), 7):
        path.write_text(whole[:place] + chr(ord(whole[place]) ^ 1) + whole[place + 1 :])
        with pytest.raises(ValueError, match="Error"):
            checkpoint.load(path, DAY)
    path.write_text(whole[:-1])
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(path, DAY)


def test_what_a_kill_left_of_a_checkpoint_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state" / "x.checkpoint.json"
    for name in ("replace", "unlink"):  # a killed process does neither
        monkeypatch.setattr(Path, name, lambda *_, **__: None)
    checkpoint.save(path, "half")
    monkeypatch.undo()
    checkpoint.save(path, "whole")
    assert [(each.name, each.read_text()) for each in path.parent.iterdir()] == [(path.name, "whole")]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, "old")
    with pytest.raises(UnicodeEncodeError):
        checkpoint.save(path, "new \ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
