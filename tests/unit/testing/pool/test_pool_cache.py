"""The cache: built once, whole or not there, one builder at a time, old entries go, used ones stay."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from ewms.testing.pool.cache import Scratch, alone, cached
from ewms.testing.pool.steps import PoolUnavailable


class Builder:
    """Makes an entry with one file; a hook may fail or wait on the way."""

    def __init__(self) -> None:
        self.built = 0
        self.error: Exception | None = None
        self.seconds = 0.0

    async def __call__(self, scratch: Scratch) -> None:
        self.built += 1
        scratch.new.mkdir()
        (scratch.new / "half").touch()
        await trio.sleep(self.seconds)
        if self.error:
            raise self.error
        (scratch.new / "whole").touch()


def say(_text: str) -> None:
    pass


async def use(shelf: Path, key: str, builder: Builder) -> set[str]:
    async with cached(shelf, key, builder, progress=say) as entry:
        return {path.name for path in entry.iterdir()}


def entries(shelf: Path) -> set[str]:
    return {path.name for path in shelf.iterdir() if path.is_dir()}


async def test_built_once(tmp_path: Path) -> None:
    builder = Builder()
    for _ in range(2):
        assert await use(tmp_path, "a", builder) == {"half", "whole"}
    assert builder.built == 1


async def test_failed_build_leaves_its_log_only(tmp_path: Path) -> None:
    builder = Builder()
    builder.error = PoolUnavailable("no mirror")
    with pytest.raises(PoolUnavailable):
        await use(tmp_path, "a", builder)
    assert entries(tmp_path) == set()
    assert (tmp_path / "a.log").exists()
    builder.error = None
    assert await use(tmp_path, "a", builder) == {"half", "whole"}


async def test_cancelled_build_leaves_nothing_half_built(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    builder = Builder()
    builder.seconds = 60
    with trio.move_on_after(1):
        await use(tmp_path, "a", builder)
    assert entries(tmp_path) == set()


async def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    for name in ("a.building-999999", "b.building-999999"):
        (tmp_path / name / "new").mkdir(parents=True)
    await use(tmp_path, "a", Builder())
    assert entries(tmp_path) == {"a"}


async def test_two_builders_build_once(tmp_path: Path) -> None:
    builder = Builder()
    builder.seconds = 0.05
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, tmp_path, "a", builder)
    assert builder.built == 1


async def test_newest_entries_stay_and_used_ones_too(tmp_path: Path) -> None:
    builder = Builder()
    async with cached(tmp_path, "used", builder, progress=say):
        for age, key in enumerate(["old", "older", "newer"]):
            await use(tmp_path, key, builder)
            os.utime(tmp_path / key, (age, age))
        os.utime(tmp_path / "used", (0, 0))
        await use(tmp_path, "newest", builder)
        assert entries(tmp_path) == {"used", "newer", "newest"}


async def test_one_at_a_time_who_waits_says_for_what(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    inside, most = 0, 0
    told: set[str] = set()

    async def one() -> None:
        nonlocal inside, most
        async with alone(tmp_path / "new" / "lock", "installs a thing", progress=told.add):
            inside += 1
            most = max(most, inside)
            await trio.sleep(5)
            inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert most == 1
    assert told == {"waiting for another process that installs a thing"}
