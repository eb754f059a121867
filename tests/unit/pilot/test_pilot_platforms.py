"""Which platform is chosen, and what is said when there is none."""

from pathlib import Path

import pytest

from ewms.pilot.containers import bwrap, open_platform
from ewms.pilot.containers.base import ContainerError, ContainerSpec
from ewms.pilot.settings import PilotSettings, read


def settings(path: Path, platform: str, **images: Path) -> PilotSettings:
    return read(
        {
            "EWMS_PILOT_TASK_IMAGE": str(images.get("task", "unused")),
            "EWMS_PILOT_INIT_IMAGE": str(images.get("init", "")),
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": platform,
            "EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST": str(path),
            "PATH": str(path),
        }
    )


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def opened(path: Path, platform: str, **images: Path) -> str:
    async with open_platform(settings(path, platform, **images)) as found:
        return found.name


def spec(directory: Path) -> ContainerSpec:
    (directory / "scratch").mkdir()
    return ContainerSpec(
        name="check",
        image=str(directory),
        args=("true",),
        environment={},
        mounts=(),
        stdout=directory / "stdout",
        stderr=directory / "stderr",
        scratch=directory / "scratch",
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


async def test_auto_takes_apptainer_before_docker(tmp_path: Path) -> None:
    program(tmp_path, "apptainer", "exit 0")
    program(tmp_path, "docker", "exit 0")
    assert await opened(tmp_path, "auto") == "apptainer"


async def test_auto_takes_bubblewrap_for_directory_images_only(tmp_path: Path, image: Path) -> None:
    program(tmp_path, "apptainer", "exit 0")
    program(tmp_path, "bwrap", "exit 0")
    assert await opened(tmp_path, "auto", task=image) == "bwrap"
    assert await opened(tmp_path, "auto", task=image, init=image) == "bwrap"
    assert await opened(tmp_path, "auto", task=image, init=tmp_path / "init.sif") == "apptainer"
    assert await opened(tmp_path, "auto") == "apptainer"


async def test_each_can_be_forced(tmp_path: Path, image: Path) -> None:
    program(tmp_path, "apptainer", "exit 0")
    program(tmp_path, "bwrap", "exit 0")
    for name in ("apptainer", "bwrap"):
        assert await opened(tmp_path, name, task=image) == name


@pytest.mark.parametrize("others", [("apptainer",), ()])
async def test_bubblewrap_that_works_is_kept(tmp_path: Path, image: Path, others: tuple[str, ...]) -> None:
    program(tmp_path, "bwrap", "exit 0")
    for name in others:
        program(tmp_path, name, "exit 1")
    async with open_platform(settings(tmp_path, "auto", task=image)) as platform:
        await platform.check(spec(tmp_path))
        assert platform.name == "bwrap"
        assert platform.isolates


async def test_where_bubblewrap_does_not_work_apptainer_runs_the_tasks_and_it_is_said_why(
    tmp_path: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program(tmp_path, "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    program(tmp_path, "apptainer", "case $2 in exec) exit 0;; run) exit 7;; esac; exit 1")
    async with open_platform(settings(tmp_path, "auto", task=image)) as platform:
        assert await platform.prepare(str(image)) == str(image)
        await platform.check(a_spec := spec(tmp_path))
        assert platform.name == "apptainer"
        async with platform.start(a_spec) as container:
            assert await container.wait() == 7
    (said,) = [record.getMessage() + str(record.__dict__) for record in caplog.records if record.levelname == "WARNING"]
    assert "falling back to another container platform" in said
    assert "'to': 'apptainer'" in said
    assert "No permissions to create new namespace" in said


async def test_where_bubblewrap_cannot_even_be_opened_apptainer_runs_the_tasks(
    tmp_path: Path, image: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "bwrap", "exit 0")
    program(tmp_path, "apptainer", "exit 0")
    monkeypatch.setattr(bwrap, "_FULL", tmp_path / "missing" / "full")
    assert await opened(tmp_path, "auto", task=image) == "apptainer"
    assert "falling back to another container platform" in caplog.text
    with pytest.raises(ContainerError, match=r"bubblewrap needs .*/missing/full"):
        await opened(tmp_path, "bwrap", task=image)


async def test_when_neither_works_the_second_says_so(tmp_path: Path, image: Path) -> None:
    program(tmp_path, "bwrap", "exit 1")
    program(tmp_path, "apptainer", "echo no user namespaces >&2; exit 1")
    async with open_platform(settings(tmp_path, "auto", task=image)) as platform:
        with pytest.raises(ContainerError, match="no user namespaces"):
            await platform.check(spec(tmp_path))


async def test_bubblewrap_takes_a_directory_by_a_relative_path(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "bwrap", "exit 0")
    monkeypatch.chdir(tmp_path)
    async with open_platform(settings(tmp_path, "auto", task=Path(image.name))) as platform:
        assert await platform.prepare(image.name) == str(image)


async def test_bubblewrap_alone_has_no_fallback(tmp_path: Path, image: Path) -> None:
    program(tmp_path, "bwrap", "echo nothing works >&2; exit 3")
    async with open_platform(settings(tmp_path, "bwrap", task=image)) as platform:
        with pytest.raises(ContainerError, match="bubblewrap ended with exit code 3: nothing works"):
            await platform.check(spec(tmp_path))
        with pytest.raises(ContainerError, match=r"x\.sif is not a directory"):
            await platform.prepare("x.sif")


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
