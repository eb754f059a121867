"""Housekeeping on a real directory, with a schedd and a WMS that answer, refuse or are silent, and full disks."""

import errno
import os
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from ewms.contract import ENVFILE_NAME
from ewms.tms import housekeeping
from ewms.tms.condor.base import Ad, CondorUnreachable, SubmitValue
from ewms.tms.entries import Entry
from ewms.tms.housekeeping import Done, Housekeeper
from ewms.tms.ledger import Ledger
from ewms.tms.packing import Disk
from ewms.tms.settings import Settings
from ewms.wms.errors import WMSMalformed, WMSNotFound, WMSUnavailable
from ewms.wms.models import Taskforce

DAY = 86400.0
OLD_LOG, NEW_LOG = "2026-11-01.tms.jel", "2026-11-10.tms.jel"
DIRECTORY = "ewms-taskforce-TF-1"


@attrs.define
class Queue:
    """A schedd that answers queries only."""

    ads: list[Ad] = attrs.field(factory=list)
    queries: int = 0
    hook: Callable[[int], None] = lambda _: None

    async def query(self, constraint: str, projection: Sequence[str], *, cluster_ads: bool = False) -> list[Ad]:
        assert (constraint, cluster_ads) == ("ProcId =?= undefined", True)
        await trio.lowlevel.checkpoint()
        self.queries += 1
        self.hook(self.queries)
        return [{name: ad.get(name) for name in projection} for ad in self.ads]


@attrs.define
class OpenTaskforces:
    """A WMS that knows which logs are in use."""

    paths: list[str] = attrs.field(factory=list)
    delay: float = 0
    error: WMSUnavailable | None = None
    deleted: set[str] = attrs.field(factory=set)
    """Taskforces that it does not list."""
    unread: set[str] = attrs.field(factory=set)
    """Taskforces that it does not know when they are read."""

    async def taskforce(self, uuid: str) -> Taskforce:
        await trio.lowlevel.checkpoint()
        if uuid in self.unread:
            raise WMSNotFound("404")
        raise WMSMalformed("taskforce", ["this one is not looked into"])

    async def query_taskforces(self, query: dict[str, Any], projection: Sequence[str]) -> list[dict[str, Any]]:
        await trio.sleep(self.delay)
        if self.error:
            raise self.error
        if uuids := query.get("taskforce_uuid"):
            return [{"taskforce_uuid": uuid} for uuid in uuids["$in"] if uuid not in self.deleted]
        asked = query["job_event_log_fpath"]["$in"]
        assert query["phase"] == {"$ne": "condor-complete"}
        # The WMS's client leaves out what is asked for and makes no sense: a document's other fields must not matter.
        assert projection == ["job_event_log_fpath"]
        return [{"job_event_log_fpath": path} for path in self.paths if path in asked]


class House:
    """A job directory as of day 0, and who is asked about it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = Settings(wms_address="http://wms", no_auth=True, job_dir=directory)
        self.queue, self.wms = Queue(), OpenTaskforces()
        self.ledger = Ledger(self.settings.state_dir / "ledger")
        self.disk = Disk()
        self.now = time.time()

    def add_log(self, name: str = OLD_LOG) -> Path:
        path = self.directory / name
        path.write_text("000 (007.000.000) 2026-11-01 10:00:00 Job submitted\n...\n" * 100)
        return path

    def add_directory(self) -> Path:
        path = self.directory / DIRECTORY
        path.mkdir()
        (path / ENVFILE_NAME).write_text("export TOKEN=SECRET")
        (path / "0.out").write_text("hello")
        return path

    def add_ad(self, **ad: SubmitValue) -> None:
        self.queue.ads.append({"ClusterId": 7, **ad})

    async def after(self, days: float) -> Done | None:
        keeper = Housekeeper(
            self.settings, self.queue, self.wms, self.ledger, disk=self.disk, clock=lambda: self.now + days * DAY
        )
        return await keeper.once()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != ".tms")


Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


def said(logs: Logs, event: str) -> int:
    """How often something was logged."""
    return [each["event"] for each in logs].count(event)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_life_of_files(house: House) -> None:
    house.add_log()
    house.add_directory()
    (house.directory / "notes.txt").write_text("an operator's own")
    everything = house.files()
    assert await house.after(0.9) == Done()
    assert house.files() == everything
    assert await house.after(1.1) == Done(archived=1)
    assert house.files() == [f"{OLD_LOG}.gz", DIRECTORY, "notes.txt"]
    assert await house.after(5.1) == Done(archived=1)
    assert house.files() == [f"{OLD_LOG}.gz", f"{DIRECTORY}.tar.gz", "notes.txt"]
    assert await house.after(7.1) == Done(deleted=2)
    assert house.files() == ["notes.txt"]


async def test_what_the_schedd_knows_is_needed_at_any_age(house: House) -> None:
    house.add_log()
    house.add_directory()
    house.add_ad(EWMSTaskforceUUID="TF-1", UserLog=str(house.directory / OLD_LOG))
    everything = house.files()
    assert await house.after(1000) == Done(needed=2)
    assert house.files() == everything


async def test_a_log_of_that_name_in_another_tmss_directory_does_not_count(house: House) -> None:
    house.add_log()
    other = house.directory.parent / "other"
    other.mkdir(exist_ok=True)
    house.add_ad(UserLog=str(other / OLD_LOG))
    assert await house.after(10) == Done(archived=1)


async def test_a_log_path_that_cannot_be_seen_from_here_counts(house: House) -> None:
    house.add_log()
    house.add_ad(UserLog=f"/outside/of/the/container/{OLD_LOG}")
    assert await house.after(10) == Done(needed=1)


async def test_a_start_that_is_not_settled_keeps_its_files(house: House) -> None:
    path = house.add_log()
    house.add_directory()
    await house.ledger.write(Entry(taskforce_uuid="TF-1", log_path=str(path), n_workers=1, intended_at=0))
    assert await house.after(1000) == Done(needed=2)


async def test_between_short_and_long_the_wms_decides(house: House) -> None:
    open_path = house.add_log(OLD_LOG)
    house.add_log(NEW_LOG)
    house.wms.paths = [str(open_path)]
    assert await house.after(2) == Done(archived=1, needed=1)
    assert house.files() == [OLD_LOG, f"{NEW_LOG}.gz"]
    assert await house.after(7.1) == Done(archived=1, deleted=1)


@pytest.mark.parametrize("wms", [OpenTaskforces(error=WMSUnavailable("500")), OpenTaskforces(delay=1e6)])
async def test_a_wms_that_cannot_say_delays_until_long(
    house: House, wms: OpenTaskforces, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1  # a thread that works must not pass for idleness
    house.add_log()
    house.wms = wms
    assert await house.after(6.9) == Done(needed=1)
    assert trio.current_time() < 100
    assert await house.after(7.1) == Done(archived=1)


async def test_without_the_schedds_answer_nothing_is_done_and_that_is_said_once(house: House, logs: Logs) -> None:
    house.add_log()
    house.add_directory()
    everything = house.files()

    def silent(_query: int) -> None:
        raise CondorUnreachable("no answer")

    house.queue.hook = silent
    keeper = Housekeeper(house.settings, house.queue, house.wms, house.ledger, clock=lambda: house.now + 1000 * DAY)
    for _ in range(3):
        assert await keeper.once() is None
    assert house.files() == everything
    assert said(logs, "nobody says which files are needed, housekeeping waits") == 1
    house.queue.hook = lambda _: None
    assert await keeper.once() == Done(archived=2)


async def test_what_is_needed_again_by_the_time_it_is_archived_stays(house: House) -> None:
    house.add_directory()

    def submit(query: int) -> None:
        if query == 2:
            house.add_ad(EWMSTaskforceUUID="TF-1")

    house.queue.hook = submit
    assert await house.after(10) == Done(needed=1)
    assert house.files() == [DIRECTORY, f"{DIRECTORY}.tar.gz"]
    house.queue.ads.clear()
    assert await house.after(10) == Done(archived=1, deleted=1)


async def test_leftovers_of_a_crash_go(house: House) -> None:
    (house.directory / f".{OLD_LOG}.gz.new").write_text("half")
    (house.directory / f".{DIRECTORY}.tar.gz.new").write_text("half")
    (house.directory / f".{DIRECTORY}.archived").mkdir()
    (house.directory / f".{DIRECTORY}.archived" / "0.out").write_text("x")
    assert await house.after(0) == Done(deleted=3)
    assert house.files() == []


async def test_symbolic_links_are_left_alone(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (house.directory / DIRECTORY).symlink_to(outside)
    (house.directory / OLD_LOG).symlink_to(outside / "x")
    assert await house.after(1000) == Done()


class Full(Disk):
    """A disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, file: BinaryIO, data: bytes) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(file, data)


async def test_a_full_disk_ends_the_round_leaves_no_half_file_and_is_tried_again(house: House, logs: Logs) -> None:
    (house.directory / "2026-10-01.tms.jel.gz").write_bytes(b"old")
    for name in (OLD_LOG, NEW_LOG):
        house.add_log(name)
    house.add_directory()
    everything = set(house.files())
    for room in (0, 10, 100):
        house.disk = Full(room)
        done = await house.after(10)
        assert done is not None
        assert (done.archived, done.failed) == (0, 1)
        assert set(house.files()) == everything - {"2026-10-01.tms.jel.gz"}
    assert said(logs, "the disk is full, housekeeping ends this round") == 3
    house.disk = Full(10**6)
    assert await house.after(10) == Done(archived=3)


async def test_what_was_archived_before_the_disk_was_full_goes(house: House) -> None:
    for name in (OLD_LOG, NEW_LOG):
        house.add_log(name)
    house.disk = Full(300)
    done = await house.after(10)
    assert done == Done(archived=1, failed=1)
    assert len([name for name in house.files() if name.endswith(".gz")]) == 1


async def test_a_fault_with_one_file_leaves_the_others_alone(house: House) -> None:
    class Odd(Disk):
        def create(self, path: Path, mode: int) -> BinaryIO:
            if OLD_LOG in path.name:
                raise PermissionError(errno.EACCES, "not yours")
            return super().create(path, mode)

    house.disk = Odd()
    house.add_log(OLD_LOG)
    house.add_log(NEW_LOG)
    house.add_directory()
    assert await house.after(10) == Done(archived=2, failed=1)
    assert OLD_LOG in house.files()


@pytest.mark.parametrize("cancel_at", [1, 2, 5])
@pytest.mark.parametrize("what", [OLD_LOG, DIRECTORY])
async def test_cancelled_in_the_middle_no_half_file_is_left(house: House, what: str, cancel_at: int) -> None:
    big = house.add_log() if what == OLD_LOG else house.add_directory() / "0.out"
    big.write_bytes(os.urandom(4 << 20))
    scope = trio.CancelScope()

    class Slow(Disk):
        writes = 0

        def write(self, file: BinaryIO, data: bytes) -> None:
            self.writes += len(data) > 1000
            if self.writes == cancel_at:
                trio.from_thread.run_sync(scope.cancel)
            super().write(file, data)

    house.disk = Slow()
    with scope:
        await house.after(10)
    assert scope.cancelled_caught
    assert house.files() == [what]


async def test_long_work_is_told_from_time_to_time_and_is_a_sign_of_life(
    house: House, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PROGRESS_INTERVAL", 0.02)
    house.add_log().write_bytes(os.urandom(3 << 20))
    beats: list[float] = []
    monkeypatch.setattr(housekeeping, "beat_here", lambda: beats.append(trio.current_time()))

    class Slow(Disk):
        def write(self, file: BinaryIO, data: bytes) -> None:
            while len(data) > 1000 and not beats:  # not the archive's header: nothing was read by then
                trio.from_thread.run(trio.sleep, 0.01)
            super().write(file, data)

    keeper = Housekeeper(
        house.settings,
        house.queue,
        house.wms,
        house.ledger,
        disk=Slow(),
        clock=lambda: house.now + 10 * DAY,
    )
    with trio.fail_after(60):
        assert await keeper.once() == Done(archived=1)
    assert beats
    assert said(logs, "still archiving")


async def test_an_archive_that_does_not_come_on_is_no_sign_of_life(
    house: House, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PROGRESS_INTERVAL", 0.02)
    beats: list[int] = []
    monkeypatch.setattr(housekeeping, "beat_here", lambda: beats.append(said(logs, "still archiving")))
    house.add_log()

    class Hanging(Disk):
        def write(self, file: BinaryIO, data: bytes) -> None:
            while said(logs, "still archiving") < 5:
                trio.from_thread.run(trio.sleep, 0.01)
            super().write(file, data)

    house.disk = Hanging()
    with trio.fail_after(60):
        assert await house.after(10) == Done(archived=1)
    assert not [moment for moment in beats if 1 <= moment < 5]  # what was read before the first look may count


async def test_the_ledger_forgets_what_has_long_been_over_a_part_in_each_round(
    house: House, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "ENTRIES", 2)
    for number in range(5):
        entry = Entry(taskforce_uuid=f"TF-{number}", log_path="", n_workers=1, intended_at=1.0, confirmed_at=1.0)
        await house.ledger.write(attrs.evolve(entry, completed_at=house.now if number else None))

    def silent(_query: int) -> None:
        raise CondorUnreachable("no answer")

    house.queue.hook = silent  # which is no reason to keep them
    left = []
    for days in (0, 89, 91, 91, 91):
        await house.after(days)
        left.append(len(await house.ledger.entries()))
    assert left == [5, 5, 3, 1, 1]
    assert said(logs, "the ledger forgot what has long been over") == 2


async def test_a_ledger_that_cannot_be_pruned_is_told(
    house: House, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_before: float, *, at_most: int) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(house.ledger, "prune", fail)
    assert await house.after(1) == Done()
    assert said(logs, "old entries of the ledger cannot be removed, it is tried again next time") == 1


async def test_a_taskforce_that_the_wms_deleted_is_forgotten_when_nobody_knows_it(house: House, logs: Logs) -> None:
    entry = Entry(taskforce_uuid="TF-1", log_path="", n_workers=1, intended_at=1.0, cluster_id=7, confirmed_at=1.0)
    await house.ledger.write(entry)
    await house.ledger.write(attrs.evolve(entry, taskforce_uuid="TF-2", cluster_id=8))
    event = "the ledger forgot taskforces that the WMS deleted"

    async def left(days: float = 0) -> list[str]:
        await house.after(days)
        return [each.taskforce_uuid for each in await house.ledger.entries()]

    both = ["TF-1", "TF-2"]
    assert await left() == both  # the WMS lists them
    house.wms.deleted = {"TF-1"}
    assert await left() == both  # but knows it when it is read: its answer makes no sense
    house.wms.unread = {"TF-1"}
    living: list[Ad] = [{"ClusterId": 7}, {"ClusterId": 9, "EWMSTaskforceUUID": "TF-1"}]
    for ad in living:
        house.queue.ads = [ad]
        assert await left() == both  # a cluster of it lives
    house.queue.ads = []
    house.wms.error = WMSUnavailable("no answer")
    assert await left() == both
    house.wms.error = None

    def silent(_query: int) -> None:
        raise CondorUnreachable("no answer")

    house.queue.hook = silent
    assert await left() == both
    house.queue.hook = lambda _: None
    assert said(logs, event) == 0
    assert await left() == ["TF-2"]
    assert said(logs, event) == 1
    await house.ledger.write(attrs.evolve(entry, stopped_at=house.now))
    assert await left(89) == both  # something happened to it lately
    assert await left(91) == ["TF-2"]


async def test_rounds_at_every_interval(house: House, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.1  # a thread that works must not pass for idleness
    first = trio.Event()
    keeper = Housekeeper(house.settings, house.queue, house.wms, house.ledger)
    with trio.move_on_after(3 * 3600 + 60):
        await keeper.run(first)
    assert first.is_set()
    assert house.queue.queries == 4
