"""Watching a directory of day logs, on a virtual clock."""

import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing

from ewms.tms.board import Board, day_of
from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.reader import Piece, Position, read_on
from ewms.tms.freshness import PATIENCE, Freshness
from ewms.tms.sites import Sites
from ewms.tms.watch import CHECKPOINT_INTERVAL, watch_logs

NAME = "2026-11-21.tms.jel"


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Reads happen in threads, which a virtual clock does not see: give them a moment before time jumps."""
    return trio.testing.MockClock(autojump_threshold=0.1)


def event(number: int, text: str, proc: int = 0, cluster: int = 7) -> bytes:
    return f"{number:03d} ({cluster:03d}.{proc:03d}.000) 2026-11-21 21:00:00Z {text}\n...\n".encode()


def submit(uuid: str = "TF-1", cluster: int = 7) -> bytes:
    return event(0, f"Job submitted from host: <x>\n    EWMSTaskforceUUID={uuid}", cluster=cluster)


EXECUTE = event(1, "Job executing on host: <x>")
TERMINATED = event(5, "Job terminated.")
REMOVED = event(36, "Cluster removed\n\tMaterialized 1 jobs from 0 items.\tComplete", -1)


@attrs.define
class Stand:
    directory: Path
    state_dir: Path
    board: Board
    sites: Sites = attrs.field(factory=Sites)

    def append(self, data: bytes, name: str = NAME) -> None:
        with (self.directory / name).open("ab") as file:
            file.write(data)

    def seen(self) -> dict[str, Any]:
        reports = self.board.changed()
        self.board.accepted(reports)
        return {report.uuid: report.compound_statuses for report in reports}

    @asynccontextmanager
    async def watching(self, checkpoint_interval: float = CHECKPOINT_INTERVAL) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(
                functools.partial(
                    watch_logs,
                    self.directory,
                    self.board,
                    state_dir=self.state_dir,
                    sites=self.sites,
                    checkpoint_interval=checkpoint_interval,
                )
            )
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    (tmp_path / "jobs").mkdir()
    return Stand(tmp_path / "jobs", tmp_path / "state", Board())


def said(logs: list[Any], text: str) -> int:
    return sum(text in entry["event"] for entry in logs)


async def test_what_was_there_is_known_when_it_has_started(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + EXECUTE)
    async with stand.watching():
        assert stand.seen() == {"TF-1": {"RUNNING": {"null": 1}}}


async def test_a_new_log_and_new_lines_are_seen_within_two_seconds(stand: Stand, autojump_clock: object) -> None:
    async with stand.watching():
        stand.append(submit())
        await trio.sleep(2)
        assert stand.seen() == {"TF-1": {"IDLE": {"null": 1}}}
        stand.append(EXECUTE[:-3])
        await trio.sleep(2)
        assert stand.seen() == {}
        stand.append(EXECUTE[-3:])
        await trio.sleep(2)
        assert stand.seen() == {"TF-1": {"RUNNING": {"null": 1}}}


async def test_only_day_logs_are_read(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit(), "2026-11-21.tms.jel.gz")
    stand.append(submit(), "other.jel")
    (stand.directory / "2026-11-20.tms.jel").mkdir()
    os.mkfifo(stand.directory / "2026-11-19.tms.jel")  # opening it would not return
    async with stand.watching():
        assert stand.seen() == {}


async def test_a_log_that_goes_before_any_of_it_could_be_read_ends_nothing(
    stand: Stand, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, position: Position) -> Piece:
        raise PermissionError(path)

    async with stand.watching():
        with monkeypatch.context() as patch:
            patch.setattr("ewms.tms.watch.read_on", refuse)
            stand.append(submit())
            await trio.sleep(3)
        (stand.directory / NAME).unlink()
        await trio.sleep(3)
        stand.append(submit(), "2026-11-22.tms.jel")
        await trio.sleep(3)
        assert stand.seen() == {"TF-1": {"IDLE": {"null": 1}}}


async def test_a_restart_reads_only_what_is_new(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + EXECUTE + event(6, "Image size of job updated: 1") * 20)
    async with stand.watching():
        await trio.sleep(1)
    # What was read is not read again: garbage over it (same length, same first and last bytes) goes unseen.
    path = stand.directory / NAME
    with path.open("r+b") as file:
        file.seek(210)
        file.write(b"x" * (path.stat().st_size - 420))
    stand.append(TERMINATED)
    stand.board = Board()
    async with stand.watching():
        assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}}}
        assert stand.board.tally(NAME).damaged == 0


async def test_a_restart_forgets_no_run_and_a_replaced_log_counts_none_twice(
    stand: Stand, autojump_clock: object
) -> None:
    stand.append(submit() + EXECUTE)
    async with stand.watching():
        pass
    stand.board, stand.sites = Board(), Sites()
    stand.append(TERMINATED + EXECUTE)  # what had begun before the restart ends
    async with stand.watching():
        runs = stand.sites.sites()
        assert [count.runs for count in runs.values()] == [1]
    stand.board, stand.sites = Board(), Sites()
    async with stand.watching():
        assert stand.sites.sites() == runs
        (stand.directory / NAME).rename(stand.directory / "moved")
        stand.append(submit() + EXECUTE + TERMINATED)
        await trio.sleep(3)
        assert stand.sites.sites() == runs


async def test_without_its_checkpoint_the_state_is_the_same(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + EXECUTE)
    async with stand.watching():
        pass
    before = stand.board.tally(NAME).dump()
    sites = stand.sites.tally(NAME).dump()
    path = checkpoint.checkpoint_path(stand.state_dir, NAME)
    path.write_text("torn")
    stand.board, stand.sites = Board(), Sites()
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            assert stand.board.tally(NAME).dump() == before
            assert stand.sites.tally(NAME).dump() == sites
    assert said(logs, "checkpoint cannot be used") == 1


async def test_checkpoints_come_in_their_interval(stand: Stand, autojump_clock: object) -> None:
    path = checkpoint.checkpoint_path(stand.state_dir, NAME)
    async with stand.watching(checkpoint_interval=8):
        stand.append(submit())
        await trio.sleep(3)
        first = path.read_text()
        stand.append(EXECUTE)
        await trio.sleep(3)
        assert path.read_text() == first
        await trio.sleep(6)
        assert path.read_text() != first


async def test_a_replaced_log_is_said_and_read_on_top(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + EXECUTE)
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            (stand.directory / NAME).rename(stand.directory / "moved")
            stand.append(TERMINATED + submit("TF-2", 8))
            await trio.sleep(3)
            assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}}, "TF-2": {"IDLE": {"null": 1}}}
    assert said(logs, "read again from its beginning") == 1


async def test_of_a_log_that_lost_its_end_no_worker_runs_again(stand: Stand, autojump_clock: object) -> None:
    begun = submit() + event(0, "Job submitted from host: <x>", 1) + EXECUTE
    stand.append(begun + TERMINATED)
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            before = stand.seen()
            assert before == {"TF-1": {"COMPLETED": {"null": 1}, "IDLE": {"null": 1}}}
            os.truncate(stand.directory / NAME, len(begun))
            await trio.sleep(3)
            assert stand.seen() == {}
            stand.append(event(1, "Job executing on host: <x>", 1))
            await trio.sleep(3)
            assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}, "RUNNING": {"null": 1}}}
    assert said(logs, "read again from its beginning") == 1


async def test_a_checkpoint_that_a_power_cut_left_ahead_of_its_log(stand: Stand, autojump_clock: object) -> None:
    begun = submit() + event(0, "Job submitted from host: <x>", 1) + EXECUTE
    stand.append(begun + TERMINATED)
    async with stand.watching():
        pass
    # The log lost its end, and grew beyond what was read before anybody looked.
    os.truncate(stand.directory / NAME, len(begun))
    stand.append(event(1, "Job executing on host: <x>", 1) + event(6, "Image size of job updated: 1", 1) * 10)
    stand.board, stand.sites = Board(), Sites()
    async with stand.watching():
        assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}, "RUNNING": {"null": 1}}}


async def test_a_deleted_log_stays_counted_until_its_clusters_were_told(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + EXECUTE)
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            (stand.directory / NAME).unlink()
            await trio.sleep(10)
            assert stand.seen() == {"TF-1": {"RUNNING": {"null": 1}}}
            stand.append(TERMINATED + REMOVED)
            await trio.sleep(3)
            assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}}}
            (stand.directory / NAME).unlink()
            await trio.sleep(10)
    assert said(logs, "is gone; what it told stays") == 2
    assert said(logs, "told to its end") == 1
    assert list(stand.state_dir.iterdir()) == []


async def test_a_log_that_housekeeping_archived_is_no_fault(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + TERMINATED + REMOVED)
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            stand.append(b"", NAME + ".gz")
            (stand.directory / NAME).unlink()
            await trio.sleep(3)
            assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}}}
            await trio.sleep(3)
    assert [entry["log_level"] for entry in logs if "was archived" in entry["event"]] == ["info"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == []
    assert said(logs, "told to its end") == 1


async def test_a_log_that_went_while_we_were_away_is_still_told(stand: Stand, autojump_clock: object) -> None:
    stand.append(submit() + TERMINATED)
    async with stand.watching():
        pass
    (stand.directory / NAME).unlink()
    stand.board = Board()
    async with stand.watching():
        assert stand.seen() == {"TF-1": {"COMPLETED": {"null": 1}}}
        await trio.sleep(3)
    assert list(stand.state_dir.iterdir()) == []


async def test_an_unreadable_log_is_said_once_and_read_later(
    stand: Stand, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.append(submit())
    broken = True

    def read_unless_broken(path: Path, position: Position) -> Piece:
        if broken:
            raise PermissionError(13, "Permission denied", str(path))
        return read_on(path, position)

    monkeypatch.setattr("ewms.tms.watch.read_on", read_unless_broken)
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            await trio.sleep(10)
            assert stand.seen() == {}
            broken = False
            await trio.sleep(2)
            assert stand.seen() == {"TF-1": {"IDLE": {"null": 1}}}
    assert (said(logs, "cannot be read"), said(logs, "can be read again")) == (1, 1)


async def test_a_missing_directory_is_said_once_and_waited_for(stand: Stand, autojump_clock: object) -> None:
    stand.directory.rmdir()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(watch_logs, stand.directory, stand.board, state_dir=stand.state_dir))
            await trio.sleep(10)
            stand.directory.mkdir()
            stand.append(submit())
            await trio.sleep(2)
            assert stand.seen() == {"TF-1": {"IDLE": {"null": 1}}}
            nursery.cancel_scope.cancel()
    assert (said(logs, "cannot be listed"), said(logs, "can be listed again")) == (1, 1)


async def test_a_full_disk_at_a_checkpoint_is_said_once_and_tried_again(
    stand: Stand, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = checkpoint.save, True

    def save(path: Path, text: str) -> None:
        if full:
            raise OSError(28, "No space left on device", str(path))
        real(path, text)

    monkeypatch.setattr(checkpoint, "save", save)
    stand.append(submit())
    with structlog.testing.capture_logs() as logs:
        async with stand.watching(checkpoint_interval=2):
            await trio.sleep(9)
            full = False
            await trio.sleep(5)
            assert checkpoint.checkpoint_path(stand.state_dir, NAME).exists()
    assert (said(logs, "cannot be written"), said(logs, "can be written again")) == (1, 1)


async def test_damage_and_foreign_clusters_are_said_once(stand: Stand, autojump_clock: object) -> None:
    stand.append(b"garbage\n...\n" + event(0, "Job submitted from host: <x>", cluster=99))
    with structlog.testing.capture_logs() as logs:
        async with stand.watching():
            for _ in range(3):
                stand.append(b"\xff\xfe\n...\n" + event(1, "Job executing on host: <x>", cluster=99))
                await trio.sleep(2)
    assert (said(logs, "damaged"), said(logs, "no taskforce is known")) == (1, 1)
    assert stand.board.tally(NAME).damaged == 4


@pytest.mark.parametrize("after", [0, 0.5, 1.01])
async def test_cancelling_leaves_a_checkpoint_of_what_was_read(
    stand: Stand, autojump_clock: object, after: float
) -> None:
    stand.append(submit())
    async with stand.watching():
        stand.append(EXECUTE)
        await trio.sleep(after)
    saved = checkpoint.load(checkpoint.checkpoint_path(stand.state_dir, NAME), day_of(NAME))
    assert saved is not None
    assert saved.tally.dump() == stand.board.tally(NAME).dump()


async def test_a_link_to_itself_hides_no_other_log(stand: Stand, autojump_clock: object) -> None:
    (stand.directory / "2026-11-01.tms.jel").symlink_to("2026-11-01.tms.jel")
    stand.append(submit() + EXECUTE)
    async with stand.watching():
        assert stand.seen() == {"TF-1": {"RUNNING": {"null": 1}}}


async def test_who_asks_for_fresh_news_need_not_wait_for_the_poll(stand: Stand) -> None:
    fresh = Freshness()
    await fresh.ask()  # nobody watches yet
    stand.append(submit())
    async with trio.open_nursery() as nursery:
        watch = functools.partial(watch_logs, stand.directory, stand.board, state_dir=stand.state_dir, fresh=fresh)
        await nursery.start(functools.partial(watch, poll=3600))
        for data in (EXECUTE, TERMINATED, submit("TF-2", 8)):
            stand.append(data)
            while not stand.seen():
                await fresh.ask()
        nursery.cancel_scope.cancel()


async def test_a_wish_that_nobody_grants_ends(autojump_clock: object) -> None:
    fresh = Freshness()
    assert fresh.begin() is None
    started = trio.current_time()
    await fresh.ask()
    assert trio.current_time() - started == PATIENCE
