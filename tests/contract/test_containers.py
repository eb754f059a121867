"""The contract of container platforms: the same checks for each of them, where its runtime is."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import container_checks
import docker_checks
import pytest

if TYPE_CHECKING:
    from ewms.testing.docker import DockerHost
    from ewms.testing.pool import Pool

NAMES = [check.__name__ for check in container_checks.CHECKS]


@pytest.mark.parametrize("check", NAMES)
def test_process(check: str, tmp_path: Path) -> None:
    container_checks.run([sys.executable, container_checks.__file__, "process", "unused", str(tmp_path), check])


@pytest.mark.pool
@pytest.mark.parametrize("check", NAMES)
def test_apptainer(check: str, pool: "Pool") -> None:
    """As an ordinary user, with the pool's Apptainer, on a directory image."""
    program = pool.job_dir / "container_checks.py"
    shutil.copy(container_checks.__file__, program)
    directory = pool.job_dir / f"check-{check}"
    argv = [pool.python, str(program), "apptainer", pool.task_image, str(directory), check]
    container_checks.run(pool.command(argv))


@pytest.mark.docker
@pytest.mark.parametrize("check", NAMES)
def test_docker(check: str, docker_host: "DockerHost") -> None:
    """As an ordinary user, through a real daemon."""
    directory = docker_host.job_dir / f"check-{check}"
    run_beside(docker_host, container_checks.__file__, "docker", docker_host.task_image, str(directory), check)


@pytest.mark.docker
@pytest.mark.parametrize("check", [check.__name__ for check in docker_checks.CHECKS])
def test_dockers_own(check: str, docker_host: "DockerHost") -> None:
    """What only Docker has: labels, leftovers, pulls, users."""
    directory = docker_host.job_dir / f"docker-{check}"
    run_beside(docker_host, docker_checks.__file__, docker_host.task_image, str(directory), docker_host.registry, check)


def run_beside(docker_host: "DockerHost", program: str, *arguments: str) -> None:
    for each in (container_checks, docker_checks):
        shutil.copy(str(each.__file__), docker_host.job_dir)
    argv = [docker_host.python, str(docker_host.job_dir / Path(program).name), *arguments]
    container_checks.run(docker_host.command(argv))
