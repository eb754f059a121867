"""The contract of container platforms: the same checks for each of them, where its runtime is."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import apptainer_checks
import container_checks
import docker_checks
import pytest
import small_images

if TYPE_CHECKING:
    from ewms.testing.docker import DockerHost
    from ewms.testing.pool import Pool

HOSTILE = Path(__file__).parents[1] / "integration" / "hostile_task.py"
NAMES = [check.__name__ for check in container_checks.CHECKS]


@pytest.mark.parametrize("check", NAMES)
def test_process(check: str, tmp_path: Path) -> None:
    container_checks.run([sys.executable, container_checks.__file__, "process", "unused", str(tmp_path), check])


@pytest.mark.pool
@pytest.mark.parametrize("check", NAMES)
def test_apptainer(check: str, pool: "Pool") -> None:
    """As an ordinary user, with the pool's Apptainer, on a directory image."""
    run_in_the_pool(pool, "apptainer", check)


@pytest.mark.pool
@pytest.mark.parametrize("check", [check.__name__ for check in (*container_checks.TOLD_LATER, *container_checks.BEGUN)])
def test_apptainer_begun_ahead(check: str, pool: "Pool") -> None:
    """What may differ when a container is begun before it is known what it runs."""
    run_in_the_pool(pool, "apptainer-begun", check)


def run_in_the_pool(pool: "Pool", platform: str, check: str) -> None:
    program = pool.job_dir / "container_checks.py"
    shutil.copy(container_checks.__file__, program)
    directory = pool.job_dir / f"check-{platform}-{check}"
    container_checks.run(pool.command([pool.python, str(program), platform, pool.task_image, str(directory), check]))


@pytest.fixture(scope="session")
def small_disk(pool: "Pool") -> Path:
    """Too small for any image."""
    path = pool.job_dir / "small-disk"
    options = f"size=1m,uid={path.parent.stat().st_uid}"
    mount = f"mkdir {path} && mount -t tmpfs -o {options} tmpfs {path}"
    container_checks.run(pool.command(["sh", "-c", mount], user="root"))
    return path


@pytest.mark.pool
@pytest.mark.parametrize("check", [check.__name__ for check in apptainer_checks.CHECKS])
def test_apptainers_own(check: str, pool: "Pool", small_disk: Path) -> None:
    """What only Apptainer has: images of other forms become directories."""
    for each in (apptainer_checks, container_checks, small_images):
        shutil.copy(str(each.__file__), pool.job_dir)
    program = str(pool.job_dir / "apptainer_checks.py")
    arguments = [pool.task_image, str(pool.job_dir / f"apptainer-{check}"), str(small_disk), check]
    container_checks.run(pool.command([pool.python, program, *arguments]))


@pytest.mark.pool
@pytest.mark.parametrize("check", NAMES)
def test_bwrap(check: str, pool: "Pool") -> None:
    """In the pilot image, as an ordinary user: bubblewrap in Apptainer, as on a worker."""
    run_in_pilot_image(pool, "bwrap", check)


@pytest.mark.pool
@pytest.mark.parametrize("check", [*NAMES, *(check.__name__ for check in container_checks.BEGUN)])
def test_bwrap_begun_ahead(check: str, pool: "Pool") -> None:
    """The same with containers that are begun before it is known what they run."""
    run_in_pilot_image(pool, "bwrap-begun", check)


def run_in_pilot_image(pool: "Pool", platform: str, check: str) -> None:
    program = pool.job_dir / "container_checks.py"
    shutil.copy(container_checks.__file__, program)
    argv = ["python3", str(program), platform, pool.task_image, str(pool.job_dir / f"check-{platform}-{check}"), check]
    options = ["--containall", "--bind", f"{pool.job_dir},/images", f"{pool.pilot_image_base}:{pool.pilot_tag}"]
    container_checks.run(pool.command(["apptainer", "-s", "exec", *options, *argv]))


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
    for path in (container_checks.__file__, docker_checks.__file__, str(HOSTILE)):
        shutil.copy(path, docker_host.job_dir)
    argv = [docker_host.python, str(docker_host.job_dir / Path(program).name), *arguments]
    container_checks.run(docker_host.command(argv))
