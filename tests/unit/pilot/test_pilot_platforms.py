"""Which platform is chosen, and what is said when there is none."""

from pathlib import Path

import pytest

from ewms.pilot.containers import open_platform
from ewms.pilot.containers.base import ContainerError
from ewms.pilot.settings import PilotSettings, read


def settings(path: Path, platform: str) -> PilotSettings:
    return read(
        {
            "EWMS_PILOT_TASK_IMAGE": "unused",
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": platform,
            "PATH": str(path),
        }
    )


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def opened(path: Path, platform: str) -> str:
    async with open_platform(settings(path, platform)) as found:
        return found.name


async def test_auto_takes_apptainer_before_docker(tmp_path: Path) -> None:
    program(tmp_path, "apptainer", "exit 0")
    program(tmp_path, "docker", "exit 0")
    assert await opened(tmp_path, "auto") == "apptainer"


async def test_auto_takes_docker_where_nothing_else_is_and_the_daemon_must_answer(tmp_path: Path) -> None:
    program(tmp_path, "docker", "echo permission denied >&2; exit 1")
    with pytest.raises(ContainerError, match="the Docker daemon cannot be used by this user: permission denied"):
        await opened(tmp_path, "auto")


async def test_a_daemon_that_only_half_answers_is_no_daemon(tmp_path: Path) -> None:
    program(tmp_path, "docker", """echo '{"ServerErrors": ["Cannot connect"], "SecurityOptions": null}'""")
    with pytest.raises(ContainerError, match="cannot be used by this user: Cannot connect"):
        await opened(tmp_path, "docker")


async def test_auto_never_runs_tasks_without_isolation(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="no container runtime was found"):
        await opened(tmp_path, "auto")


async def test_docker_starts_from_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PILOT", "x")
    info = '{"SecurityOptions": ["name=rootless"]}'
    program(tmp_path, "docker", f"test -z \"$SECRET_OF_THE_PILOT\" || exit 1\ntest $1 = info && echo '{info}'\nexit 0")
    assert await opened(tmp_path, "docker") == "docker"
