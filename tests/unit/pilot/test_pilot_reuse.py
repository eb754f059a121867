"""A task's directories serve another one only when they are as new."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ewms.pilot.directories import DataDirectory, Kept, TaskDirectory
from ewms.pilot.reuse import MOST

PLACES = ("", "task-io", "outputs", "scratch", "scratch/tmp")


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path, kept=Kept(10, 10**9))
    made.create()
    made.reuse.own_modes = ["scratch/tmp"]
    return made


def used(data: DataDirectory, name: str = "T1") -> TaskDirectory:
    """A task's directories after an ordinary run."""
    task = data.new_task(name, ".in", ".out")
    for path in (Path(task.infile), Path(task.outfile), task.stdout, task.stderr):
        path.write_text("something")
    (task.scratch / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (task.scratch / "tmp" / "left").symlink_to("/etc/passwd")
    return task


def inode(path: Path) -> int:
    return path.stat().st_ino


async def test_the_next_task_has_them_empty(data: DataDirectory) -> None:
    first = used(data)
    before = {place: inode(first.root / place) for place in PLACES}
    await data.drop(first)
    assert [path for path in first.root.rglob("*") if not path.is_dir()] == []
    second = data.new_task("T2", ".in", ".json")
    assert second.outfile == f"{first.root}/task-io/outfile-T2.json"
    assert {place: inode(second.root / place) for place in PLACES} == before


async def test_at_the_end_nothing_is_left(data: DataDirectory) -> None:
    for task in [used(data, f"T{number}") for number in range(MOST + 3)]:
        await data.drop(task)
    assert len([path for path in data.root.iterdir() if path != data.hub]) == MOST
    await data.drop_free()
    assert [path for path in data.root.iterdir() if path != data.hub] == []


def _mode(path: Path) -> None:
    path.chmod(0o700 if path.stat().st_mode & 0o777 != 0o700 else 0o711)


def _subdirectory(path: Path) -> None:
    (path / "more").mkdir()


def _many(path: Path) -> None:
    for number in range(2000):
        (path / f"{number:0100}").touch()


def _replaced(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _noted(path: Path) -> None:
    try:
        os.setxattr(path, "user.note", b"from the task before")
    except OSError:
        pytest.skip("this file system keeps no notes")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", [_mode, _subdirectory, _noted, _replaced])
async def test_what_a_task_changed_goes(data: DataDirectory, place: str, change: Callable[[Path], None]) -> None:
    task = used(data)
    if (place, change) in ((("scratch/tmp"), _mode), ("", _replaced)):
        return  # its mode is set each time; and nobody else can touch the place of the whole
    change(task.root / place)
    await data.drop(task)
    assert not task.root.exists()
    assert data.reuse.take() is None


async def test_one_that_had_many_files_goes(data: DataDirectory) -> None:
    task = used(data)
    _many(task.task_io)
    if task.task_io.stat().st_size <= 4096:
        pytest.skip("directories have one size on this file system")
    await data.drop(task)
    assert not task.root.exists()


async def test_an_init_containers_directories_go(data: DataDirectory) -> None:
    used(data)  # by which a new one is known
    run = data.new_run("init-1")
    await data.drop(run)
    assert not run.root.exists()
