"""The pilot's files: what a task wrote is not trusted, and nothing piles up."""

import os
from pathlib import Path

import pytest

from ewms.pilot.directories import DataDirectory, Kept, read_outfile, read_tail, remove_tree, tree_size
from ewms.pilot.errors import BadOutput, DataDirectoryError


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    data = DataDirectory(tmp_path, kept=Kept(2, 10**9))
    data.create()
    return data


def test_the_layout_of_the_contract(data: DataDirectory, tmp_path: Path) -> None:
    task = data.new_task("T1", ".in", ".out")
    data.write_infile(task, b"\x00\r\n")
    base = tmp_path / "ewms-pilot-data"
    assert (base / "data-hub").is_dir()
    assert (base / "T1" / "task-io" / "infile-T1.in").read_bytes() == b"\x00\r\n"
    assert task.outfile == base / "T1" / "task-io" / "outfile-T1.out"
    assert (task.stdout, task.stderr) == (
        base / "T1" / "outputs" / "stdoutfile",
        base / "T1" / "outputs" / "stderrfile",
    )
    assert data.new_run("init-1").scratch == base / "init-1" / "scratch"


def test_the_same_id_twice_is_the_pilots_fault(data: DataDirectory) -> None:
    data.new_task("T1", "", "")
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
