"""Directories that a workflow's author has mounted show no task the pilot's own files, nor those of other tasks."""

import os
from pathlib import Path

import pytest
from pilot_fakes import World
from structlog.testing import capture_logs
from trio.testing import MockClock

from ewms.contract import ENVFILE_NAME
from ewms.pilot.errors import ExitStatus


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pilot in a worker's directory, with its secrets where HTCondor puts them."""
    worker = tmp_path / "dir_7" / "scratch"
    cookie = tmp_path / "dir_7" / "user" / ".chirp.config"
    for file in (worker / ENVFILE_NAME, cookie, worker / "input" / "table"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(worker)
    return World(worker, isolates=True, system={"_CONDOR_CHIRP_CONFIG": str(cookie)})


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("..", f"{ENVFILE_NAME} is in it"),
        (".", f"{ENVFILE_NAME} is in it"),
        ("../user", ".chirp.config is in it"),
        ("link", f"{ENVFILE_NAME} is in it"),
        ("ewms-pilot-data", "the files of other tasks are there"),
        ("ewms-pilot-data/data-hub", "the files of other tasks are there"),
    ],
)
async def test_what_would_show_them_is_refused(
    autojump_clock: MockClock, world: World, place: str, reason: str
) -> None:
    (world.tmp_path / "link").symlink_to(world.tmp_path)
    named = os.path.normpath(world.tmp_path / place)  # noqa: ASYNC240  it asks nobody
    world.put("x")
    with capture_logs() as logs:
        status = await world.run(external_directories=named)
    assert status == ExitStatus.CONFIGURATION
    assert reason in str(logs)
    assert len(world.queues["in"]) == 1


async def test_a_directory_that_holds_those_of_all_tasks_is_refused(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    world.tmp_path = tmp_path / "disk" / "pilots"
    world.tmp_path.mkdir(parents=True)
    world.put("x")
    with capture_logs() as logs:
        status = await world.run(external_directories=tmp_path / "disk")
    assert status == ExitStatus.CONFIGURATION
    assert "the files of other tasks are there" in str(logs)


async def test_what_shows_none_of_them_is_mounted(autojump_clock: MockClock, world: World) -> None:
    world.put("x")
    assert await world.run(external_directories=world.tmp_path / "input") == ExitStatus.OK
