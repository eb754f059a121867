"""The Dockerfile, built and run for real: without a network, as what it starts from has Debian's packages already."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import build_images
import pytest
import trio

from ewms.testing import localqueue
from ewms.testing.docker import USER
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.places import default_cache_dir
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.wheels import running_wheel

if TYPE_CHECKING:
    from ewms.testing.docker import DockerHost

pytestmark = pytest.mark.docker

PAGE: Final = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
VERSION: Final = "v0.0.1"
# The machine itself: Debian with Docker's client. Without the daemon it is half as large.
MACHINE: Final = (
    "-C / --one-file-system --exclude=dockerd --exclude='containerd*' --exclude=docker-registry"
    " --exclude=./usr/share -c ./bin ./etc ./home ./lib ./lib64 ./sbin ./tmp ./usr ./var/lib/dpkg"
)


@pytest.fixture
def context(docker_host: "DockerHost") -> Path:
    """The directory that Docker builds from: `containers`, and the site that is put there."""
    directory = docker_host.job_dir.parent / "context"
    shutil.copytree(containers_dir(), directory / "containers", dirs_exist_ok=True)
    return directory


async def built(
    docker_host: "DockerHost", context: Path, wheel: Path, name: str, *, files: str = MACHINE, root: str = "machine:1"
) -> str:
    """Build an image as a release does, from an image `root` of these files; its tag."""
    await docker_host.run(["bash", "-o", "pipefail", "-c", f"tar {files} | docker import - {root}"], user="root")
    image, target = build_images.images()[name], context / f"site-{name}"
    for command in build_images.site(image, wheel, target):
        await trio.run_process(command, env={**os.environ, "PYTHON": sys.executable})
    tag = image.tag(VERSION)
    docker, build, *options = build_images.docker(image, tag, target.name, root=root)
    await docker_host.run([docker, build, "--network=none", *options], user="root", cwd=str(context))
    return tag


async def run(docker_host: "DockerHost", *words: str) -> tuple[str, str]:
    done = await docker_host.run(["docker", "run", "--rm", "--network=none", *words])
    return done.stdout.decode(), done.stderr.decode()


async def tried(
    docker_host: "DockerHost", tag: str, *options: str, group: str = "", image: str = "none", platform: str = "process"
) -> str:
    """Let a pilot's image do an event; what it says first are its versions."""
    jobs = docker_host.job_dir
    await docker_host.run(["tee", str(jobs / "event.in")], stdin=b"from an image")
    out, said = await run(
        docker_host,
        f"--user={docker_host.inside.users[USER].uid}{group}",
        f"--volume={jobs}:{jobs}",
        f"--workdir={jobs}",
        *options,
        tag,
        *("try", "--image", image, "--platform", platform, "--event", "event.in"),
        *("--args", "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'"),
    )
    assert "FROM AN IMAGE" in out, out + said
    return said.splitlines()[0]


async def test_the_tms(docker_host: "DockerHost", context: Path) -> None:
    wheel = running_wheel(context)
    tag = await built(docker_host, context, wheel, "tms")
    ours = wheel.name.split("-")[1]
    out, said = await run(docker_host, tag, "--version")
    assert out == f"ewms, version {ours}\n"
    assert said.startswith(f"versions: ewms {ours}, htcondor ")
    assert await run(docker_host, "--entrypoint=/usr/bin/id", tag, "--user") == ("21000\n", "")


async def test_a_pilot_whose_tasks_run_in_docker(docker_host: "DockerHost", context: Path) -> None:
    tag = await built(docker_host, context, running_wheel(context), "pilot-docker")
    jobs, socket = docker_host.job_dir, "/var/run/docker.sock"
    group = (await docker_host.run(["stat", "--format=%g", socket])).stdout.decode().strip()
    options = (f"--volume={socket}:{socket}", f"--env=TMPDIR={jobs}")
    versions = await tried(
        docker_host, tag, *options, group=f":{group}", image=docker_host.task_image, platform="docker"
    )
    assert ", docker-cli " in versions
    await as_the_page_says(docker_host, tag)


async def as_the_page_says(docker_host: "DockerHost", tag: str) -> None:
    """The command of docs/images.md, with a broker that needs no network."""
    found = re.search(r"^```sh\n(docker run .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    command, n = re.subn(r"REGISTRY/ewms-pilot:\S+", tag, found[1])
    assert n == 1
    directory = docker_host.job_dir / "page"
    broker = directory / "broker"
    settings = {
        "EWMS_PILOT_TASK_IMAGE": docker_host.task_image,
        "EWMS_PILOT_TASK_ARGS": "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'",
        **{f"EWMS_PILOT_QUEUE_{way}": way.lower() for way in ("INCOMING", "OUTGOING")},
        **{f"EWMS_PILOT_QUEUE_{way}_BROKER_TYPE": "local" for way in ("INCOMING", "OUTGOING")},
        **{f"EWMS_PILOT_QUEUE_{way}_BROKER_ADDRESS": str(broker) for way in ("INCOMING", "OUTGOING")},
    }
    broker.mkdir(parents=True)
    (directory / "pilot.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    await localqueue.put(broker, "incoming", ["one", "two"])
    await docker_host.run(["chown", "--recursive", USER, str(directory)], user="root")
    done = await docker_host.run(["bash", "-euc", command], cwd=str(directory), check=False)
    assert done.returncode == 0, done.stderr.decode()
    results = await localqueue.drain(broker, "outgoing")
    assert sorted(event.data for event in results) == ["ONE", "TWO"]


async def test_a_pilot_of_one_broker_whose_tasks_run_in_apptainer(docker_host: "DockerHost", context: Path) -> None:
    """The others of its kind differ in their locks alone."""
    async with root_filesystem("pilot-root", cache_dir=default_cache_dir(), progress=print) as root:
        files = f"-C {root} --exclude=./dev --exclude=./usr/share/doc --exclude=./usr/share/locale -c ."
        tag = await built(
            docker_host, context, running_wheel(context), "pilot-nats", files=files, root="pilot-machine:1"
        )
    versions = await tried(docker_host, tag)
    assert ", nats-py " in versions
    assert "pulsar" not in versions
    assert ", apptainer " in versions
    assert ", bubblewrap " in versions
