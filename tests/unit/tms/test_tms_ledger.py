import stat
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from ewms.tms.entries import Entry, parse, serialize
from ewms.tms.errors import LedgerDamaged
from ewms.tms.files import write_atomically
from ewms.tms.ledger import Ledger
from ewms.tms.lock import hold_lock

ENTRY = Entry(taskforce_uuid="TF-1", log_path="/jobs/x.jel", n_workers=4, intended_at=1000.5)


def test_an_entry_survives_its_text_form() -> None:
    full = attrs.evolve(ENTRY, cluster_id=7, submit_dict={"a": "b", "max_idle": 200}, confirmed_at=2.0, ended_at=3.0)
    assert parse(serialize(full)) == full
    assert parse(serialize(ENTRY)) == ENTRY
    assert parse(serialize(full).replace(b"{", b'{"of a newer version": 1,', 1)) == full


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b'{"taskforce_uuid": 1}', b"\xff", b"[" * 100_000),
        serialize(attrs.evolve(ENTRY, confirmed_at=float("nan"))),
        serialize(attrs.evolve(ENTRY, intended_at=float("inf"))),
    ],
)
def test_a_damaged_entry(content: bytes) -> None:
    with pytest.raises(LedgerDamaged):
        parse(content)


async def test_reading_writing_changing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a" / "ledger")
    assert await ledger.read("TF-1") is None
    await ledger.update("TF-1", confirmed_at=5.0)  # nothing to change
    assert await ledger.read("TF-1") is None
    await ledger.write(ENTRY)
    await ledger.update("TF-1", cluster_id=7)
    again = Ledger(tmp_path / "a" / "ledger")
    assert await again.read("TF-1") == attrs.evolve(ENTRY, cluster_id=7)
    assert again.created_at == ledger.created_at
    assert await again.entries() == [attrs.evolve(ENTRY, cluster_id=7)]
    await again.update("TF-2", default=attrs.evolve(ENTRY, taskforce_uuid="TF-2"), confirmed_at=9.0)
    adopted = await again.read("TF-2")
    assert adopted is not None
    assert adopted.confirmed_at == 9.0


async def test_an_entry_of_another_taskforce_is_damaged(tmp_path: Path) -> None:
    """Else pruning would remove what the foreign name leads to."""
    ledger = Ledger(tmp_path / "ledger")
    kept = tmp_path / "kept.json"
    kept.touch()
    foreign = attrs.evolve(ENTRY, taskforce_uuid="../kept", cluster_id=7, completed_at=1.0)
    (tmp_path / "ledger" / "TF-1.json").write_bytes(serialize(foreign))
    entry = await ledger.read("TF-1")
    assert entry is not None
    assert (entry.taskforce_uuid, entry.cluster_id, entry.is_unsettled) == ("TF-1", None, True)
    assert await ledger.prune(1e18, at_most=10) == 0
    assert kept.exists()


async def test_one_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    await ledger.write(attrs.evolve(ENTRY, taskforce_uuid="TF-2", cluster_id=7))
    (tmp_path / "TF-1.json").mkdir()  # for root too
    with capture_logs() as logs:
        entries = await ledger.entries()
    assert [(entry.taskforce_uuid, entry.cluster_id) for entry in entries] == [("TF-1", None), ("TF-2", 7)]
    assert entries[0].is_unsettled
    assert [line["log_level"] for line in logs] == ["error"]


async def test_a_damaged_file_counts_as_an_intent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "TF-1.json").write_bytes(b"{")
    with capture_logs() as logs:
        entry = await ledger.read("TF-1")
        assert await ledger.entries() == [entry]
    assert entry is not None
    assert entry.cluster_id is None
    assert entry.is_unsettled
    assert [line["log_level"] for line in logs] == ["error"]


async def test_a_damaged_file_gives_way_to_what_names_the_cluster_and_to_nothing_less(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for default, expected in [(ENTRY, None), (attrs.evolve(ENTRY, cluster_id=7), 7)]:
        (tmp_path / "TF-1.json").write_bytes(b"{")
        await ledger.update("TF-1", default=default, stop_began_at=5.0)
        entry = await ledger.read("TF-1")
        assert entry is not None
        assert (entry.cluster_id, entry.stop_began_at) == (expected, 5.0)
        assert entry.is_known == (expected is not None)


async def test_only_what_is_over_and_old_is_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    await ledger.write(attrs.evolve(ENTRY, taskforce_uuid="TF-1", completed_at=1500.0))
    await ledger.write(attrs.evolve(ENTRY, taskforce_uuid="TF-2"))
    await ledger.write(attrs.evolve(ENTRY, taskforce_uuid="TF-3", withdrawn_at=1500.0))
    await ledger.write(attrs.evolve(ENTRY, taskforce_uuid="TF-4", withdrawn_at=1500.0, completed_at=9000.0))
    assert await ledger.prune(before=1400.0, at_most=10) == 0  # however old its order is
    assert await ledger.prune(before=2000.0, at_most=1) == 1
    assert await ledger.prune(before=2000.0, at_most=10) == 1
    assert [entry.taskforce_uuid for entry in await ledger.entries()] == ["TF-2", "TF-4"]


async def test_a_full_disk_is_told_where_it_can_be_borne(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    await ledger.write(ENTRY)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ewms.tms.ledger.write_atomically", full)
    with capture_logs() as logs:
        await ledger.update("TF-1", cluster_id=7)
    assert logs[0]["event"] == "ledger entry was not written"
    with pytest.raises(OSError, match="No space"):
        await ledger.write(ENTRY)


def test_a_file_is_private_from_its_first_byte_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "envfile"
    (tmp_path / ".envfile.new").write_text("left by a crash, readable for all")
    write_atomically(path, b"secret", 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["envfile"]


async def test_a_second_tms_waits_for_the_lock_and_says_so(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / ".tms" / "lock"
    waits_for = list[str]()
    with capture_logs() as logs:
        async with hold_lock(path), trio.open_nursery() as nursery:
            with trio.move_on_after(100) as scope:
                async with hold_lock(path, waits_for=waits_for.append):
                    raise AssertionError("two hold it")
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
    assert [line["event"].partition(":")[0] for line in logs] == ["waiting", "waiting"]  # once a minute
    assert "another TMS" in waits_for[-1]
    async with hold_lock(path, waits_for=waits_for.append):
        assert waits_for[-1] == ""


async def test_a_helper_left_behind_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    async with hold_lock(path) as descriptor:
        command = [sys.executable, "-c", "input()"]
        helper = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[descriptor])  # noqa: ASYNC220  outlives scopes
    try:
        with trio.move_on_after(0.1) as scope:
            async with hold_lock(path):
                pass
        assert scope.cancelled_caught
    finally:
        helper.communicate(b"\n", timeout=60)
    with trio.fail_after(60):
        async with hold_lock(path):
            pass
