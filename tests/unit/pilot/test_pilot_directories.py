"""The pilot's files: what a task wrote is not trusted, and nothing piles up."""

import os
import sys
from pathlib import Path

import pytest
import trio

from ewms.pilot.containment import Recipe, spec_of, task_io_mount
from ewms.pilot.directories import DataDirectory, Kept, read_outfile, read_tail, remove_tree, tree_size
from ewms.pilot.errors import BadOutput, DataDirectoryError

RECIPE = Recipe(image="none", words=[], environment={}, timeout=None, mounts=())


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    data = DataDirectory(tmp_path, kept=Kept(2, 10**9))
    data.create()
    return data


async def test_the_layout_of_the_contract(data: DataDirectory, tmp_path: Path) -> None:
    task = data.new_task("T1", ".in", ".out")
    data.write_infile(task, b"\x00\r\n")
    (task.task_io / task.outfile_name).write_bytes(b"made")
    task.stdout.write_text("said")
    task.stderr.write_text("complained")
    base = tmp_path / "ewms-pilot-data"
    assert (base / "data-hub").is_dir()
    assert task.root.parent == base
    await data.keep_unlimited(task)
    files = {str(path.relative_to(base / "T1")): path.read_bytes() for path in (base / "T1").glob("*/*")}
    assert files == {
        "task-io/infile-T1.in": b"\x00\r\n",
        "task-io/outfile-T1.out": b"made",
        "outputs/stdoutfile": b"said",
        "outputs/stderrfile": b"complained",
    }
    assert data.new_run("init-1").scratch == base / "init-1" / "scratch"


async def test_no_name_of_a_task_gets_into_pythons_table_of_path_names(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory would grow: each new name stays in it for a while, and the table is copied to grow."""
    interned: list[str] = []
    intern = sys.intern

    def noting(text: str) -> str:
        interned.append(text)
        return intern(text)

    monkeypatch.setattr(sys, "intern", noting)
    task = data.new_task("T1", ".in", ".out")
    data.write_infile(task, b"1")
    assert read_outfile(task.outfile, 10) is None
    spec_of(RECIPE, task, mounts=(task_io_mount(task),))
    assert [str(path) for path in (task.scratch, task.stdout, task.stderr)]
    assert "scratch" in interned
    assert [text for text in interned if "T1" in text] == []


async def test_it_has_its_name_also_where_there_is_no_time_to_remove_its_scratch(data: DataDirectory) -> None:
    task = data.new_task("T1", "", "")
    for number in range(300):
        (task.scratch / str(number)).mkdir()
    with trio.CancelScope() as no_time:
        no_time.cancel()
        await data.keep_unlimited(task)
    assert no_time.cancelled_caught
    assert (data.root / "T1" / "task-io").is_dir()


async def test_where_it_cannot_be_renamed_it_is_kept_all_the_same(data: DataDirectory) -> None:
    (data.root / "T1").write_text("somebody else's")
    task = data.new_task("T1", "", "")
    assert await data.keep_unlimited(task) == task.root
    assert task.task_io.is_dir()


def test_without_its_place_it_is_the_pilots_fault(data: DataDirectory) -> None:
    data.hub.rmdir()
    data.root.rmdir()
    with pytest.raises(DataDirectoryError):
        data.new_task("T1", "", "")


def test_outfiles(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert read_outfile(out, 10) is None
    out.write_bytes(b"")
    assert read_outfile(out, 10) == b""
    out.write_bytes(b"x" * 11)
    with pytest.raises(BadOutput, match="11 bytes, more than the limit of 10"):
        read_outfile(out, 10)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "dangling"])
def test_an_outfile_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A link could lead to the pilot's tokens, and a FIFO would block it."""
    out = tmp_path / "out"
    (tmp_path / "secret").write_text("token")
    if kind == "directory":
        out.mkdir()
    elif kind == "fifo":
        os.mkfifo(out)
    else:
        out.symlink_to(tmp_path / ("secret" if kind == "link" else "nothing"))
    with pytest.raises(BadOutput):
        read_outfile(out, 10)


def test_the_tail_of_an_output(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc\xff")
    assert read_tail(tmp_path / "f", 2) == "c\ufffd"
    assert read_tail(tmp_path / "none", 2) == ""


async def test_removal_follows_no_links_and_opens_closed_directories(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    root = tmp_path / "root"
    (root / "deep" / "closed").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "deep" / "closed" / "file").write_text("x")
    (root / "deep" / "closed").chmod(0)
    for number in range(500):
        (root / f"f{number}").touch()
    await remove_tree(root)
    assert not root.exists()
    assert (outside / "precious").exists()
    await remove_tree(root)


async def test_failed_ones_are_kept_within_the_limits(data: DataDirectory) -> None:
    for number in range(4):
        task = data.new_task(f"T{number}", "", "")
        (task.scratch / "big").write_bytes(b"x" * 10_000)
        task.stderr.write_text("why")
        await data.keep(task)
    kept = sorted(path.name for path in data.root.iterdir())
    assert kept == ["T2", "T3", "data-hub"]
    assert not (data.root / "T3" / "scratch").exists()


def test_kept_bytes() -> None:
    kept = Kept(10, 100)
    assert kept.add(Path("a"), 60) == []
    assert kept.add(Path("b"), 60) == [Path("a")]
    assert kept.add(Path("c"), 101) == [Path("b"), Path("c")]
    assert kept.add(Path("d"), 100) == []


def test_tree_size(tmp_path: Path) -> None:
    assert tree_size(tmp_path) == 0
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 5000)
    assert 5000 <= tree_size(tmp_path) < 50_000
