"""A real Docker daemon on one machine, with an image registry beside it, for tests: `open_docker`.

Both are Debian's, in a root file system of their own that is entered like the pool's (`ewms.testing.pool`): nothing is
installed on the machine, one kill ends all of it with its containers, and nothing is left afterwards. The daemon has no
bridge and no firewall rules, so containers have a loopback interface only.
"""

import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ewms.testing.pool.cgroups import cgroups_here, own_cgroup
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.namespace import CommandFailed, Namespace, open_namespace
from ewms.testing.pool.places import default_cache_dir, opened_to_all
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.sites import Needs, RootPython, site
from ewms.testing.pool.steps import PoolUnavailable, Progress, last_line
from ewms.testing.pool.surroundings import check_surroundings
from ewms.testing.pool.wheels import running_wheel

USER: Final = "ewms"
TASK_IMAGE: Final = "ewms-task:1"

CGROUP_PREFIX: Final = "ewms-docker-"
_START_DEADLINE_S: Final = 60
_POLL_S: Final = 0.1
_IMPORT: Final = (
    'tar -C "$1" --exclude=./dev --exclude=apptainer -c . | docker import --change "ENV LC_ALL=C.UTF-8" - "$2"'
)


@attrs.frozen(kw_only=True)
class DockerHost:
    """A machine with a Docker daemon, which its ordinary user may use."""

    version: str
    """Of the daemon, as it says."""
    python: str
    """An interpreter inside that has `ewms[pilot]`."""
    job_dir: Path
    """The ordinary user's; the same path inside and outside."""
    logs: Path
    task_image: str
    """Runs its arguments; has a shell, coreutils and Python."""
    registry: str
    """`HOST:PORT` of an image registry that the daemon may pull from; it is empty."""
    inside: Namespace

    def command(
        self, argv: Sequence[str], *, user: str = USER, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """The command line that runs `argv` inside; see `Namespace.command`."""
        return self.inside.command(argv, user=user, env=env, cwd=cwd)

    async def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside to its end; see `Namespace.run`."""
        return await self.inside.run(argv, **options)


@asynccontextmanager
async def open_docker(
    work_dir: Path, *, progress: Progress, cache_dir: Path | None = None, wheel: Path | None = None
) -> AsyncIterator[DockerHost]:
    """A Docker daemon with a task image and a registry, while the context lasts.

    The first time, it gets some 100 MB of Debian packages and keeps them under `cache_dir`. `work_dir` becomes
    readable for everybody who can walk there. `wheel` is what is installed inside; without it, the package as it runs
    here is.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    await check_surroundings()
    cache_dir = cache_dir or default_cache_dir()
    logs = opened_to_all(work_dir)
    async with AsyncExitStack() as stack:

        async def root(name: str) -> Path:
            return await stack.enter_async_context(root_filesystem(name, cache_dir=cache_dir, progress=progress))

        machine, image_root = await root("docker-root"), await root("pilot-root")
        python = RootPython.of(machine)
        wheel = wheel or running_wheel(work_dir)
        packages = await stack.enter_async_context(
            site(python, Needs.of_extra("pilot", wheel), wheel, cache_dir=cache_dir, progress=progress)
        )
        cgroup = stack.enter_context(own_cgroup(CGROUP_PREFIX))
        visible = [cache_dir, containers_dir(), *cgroups_here()]
        inside = await stack.enter_async_context(open_namespace(machine, work_dir, visible=visible))
        await inside.bind(packages, python.site_dir)
        version = await _start_daemon(inside, cgroup, logs, progress)
        progress("importing the task image")
        # As root, who may read all of it.
        await inside.run(["bash", "-o", "pipefail", "-c", _IMPORT, "-", str(image_root), TASK_IMAGE], user="root")
        yield DockerHost(
            version=version,
            python="/usr/bin/python3",
            job_dir=await _job_dir(inside, work_dir),
            logs=logs,
            task_image=TASK_IMAGE,
            registry=await _start_registry(inside, logs),
            inside=inside,
        )


async def _start_daemon(inside: Namespace, cgroup: str, logs: Path, progress: Progress) -> str:
    """Start it and wait until it answers; its version."""
    # In memory: images go with the namespace, and the daemon's overlays cannot lie on the one that the root is.
    await inside.run(["mkdir", "-p", "/var/lib/docker"], user="root")
    await inside.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib/docker"], user="root")
    options = [
        *("--iptables=false", "--ip-masq=false", "--bridge=none"),
        *(f"--cgroup-parent=/{cgroup}", "--exec-opt=native.cgroupdriver=cgroupfs"),
        # What opens a door for a group of users on other machines does it here for the one user.
        f"--group={USER}",
    ]
    output = logs / "dockerd.log"
    progress("starting the Docker daemon")
    with output.open("ab") as log:
        daemon = await inside.spawn(
            ["dockerd", *options], user="root", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log=log
        )
    with trio.move_on_after(_START_DEADLINE_S):
        while daemon.poll() is None:
            with suppress(CommandFailed):
                info = await inside.run(["docker", "version", "--format", "{{.Server.Version}}"])
                return info.stdout.decode().strip()
            await trio.sleep(_POLL_S)
    raise PoolUnavailable(f"the Docker daemon does not come up: {last_line(output)} (its log: {output})")


async def _start_registry(inside: Namespace, logs: Path) -> str:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": "/var/lib/docker-registry"}},
        "http": {"addr": address},
    }
    file = logs / "registry.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    output = logs / "registry.log"
    with output.open("ab") as log:
        server = await inside.spawn(["docker-registry", "serve", str(file)], user="root", log=log)
    with trio.move_on_after(_START_DEADLINE_S):
        while server.poll() is None:
            with suppress(OSError):
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return address
            await trio.sleep(_POLL_S)
    raise PoolUnavailable(f"the image registry does not come up: {last_line(output)} (its log: {output})")


async def _job_dir(inside: Namespace, work_dir: Path) -> Path:
    path = work_dir / "jobs"
    await inside.run(["install", "--directory", f"--owner={USER}", f"--group={USER}", str(path)], user="root")
    return path
