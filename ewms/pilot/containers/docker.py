"""Docker: one `docker run --rm` for each task, through the daemon of this machine.

- A container is the daemon's child, not ours: killing the client leaves it alive. It is removed by its name when a run
  ends early, by `dockerreaper.py` when the pilot is killed, and by the next pilot's self-check when all else was.
- The client starts from an environment of its own: PATH, HOME (credentials of registries), and where the daemon is.
- The task runs as the pilot's user, so that the files in its mounts have one owner; with a rootless daemon that user
  is root inside.
- /tmp, /var/tmp and HOME are directories in the task's scratch: what a task writes there goes with it.
"""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

import attrs
import structlog
import trio

from ewms.pilot.containers import dockerreaper
from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, ImageUnusable, Mount, Usage
from ewms.pilot.containers.dockermeter import Meter
from ewms.pilot.containers.dockerwords import (
    LISTING_FORMAT,
    OWNER_LABEL,
    SCRATCH,
    RunOptions,
    lacks,
    leftover_rows,
    passed,
    run_words,
    runtime_complaint,
)
from ewms.pilot.containers.mounts import checked
from ewms.pilot.containers.ownership import Owner, is_leftover
from ewms.pilot.containers.processes import Command, Launcher, Process
from ewms.pilot.settings import PilotSettings, environment

log = structlog.stdlib.get_logger(__name__)

CALL_LIMIT_S: Final = 30.0
"""For one short question to the daemon."""
PULL_LIMIT_S: Final = 3600.0
PULL_TELL_S: Final = 10.0
"""How often a pull says how far it is."""
REMOVAL_LIMIT_S: Final = 20.0
"""For one container; what is not gone by then is left to the next pilot."""
_POLL_S: Final = 0.2
_RUNTIME_FAILED: Final = 125
_TRUE: Final = "true"
_TAIL: Final = 2000


@attrs.frozen
class Client:
    """The `docker` command, for short questions."""

    program: str
    env: Mapping[str, str]
    """All of its own environment."""

    async def ask(self, *words: str) -> str:
        """Run one command to its end; what it printed.

        Raises:
            ContainerError: it failed, or did not answer in time.
        """
        done = None
        with trio.move_on_after(CALL_LIMIT_S):
            done = await trio.run_process(
                [self.program, *words], capture_stdout=True, capture_stderr=True, check=False, env=dict(self.env)
            )
        if done is None:
            raise ContainerError(f"the Docker daemon did not answer `docker {words[0]}` within {CALL_LIMIT_S:g} s")
        if done.returncode != 0:
            raise ContainerError(
                done.stderr.decode(errors="replace").strip()[-_TAIL:] or f"exit code {done.returncode}"
            )
        return done.stdout.decode(errors="replace")

    async def remove(self, name: str) -> None:
        """Kill and remove a container by its name; return when the daemon knows it no more."""
        seen_absent = 0
        # Twice: the daemon may have been making it when its client was killed.
        while seen_absent < 2:
            with suppress(ContainerError):  # "no such container", or "removal is already in progress"
                await self.ask("rm", "--force", "--volumes", name)
            present = await self.ask("ps", "--all", "--quiet", "--filter", f"name=^/?{name}$")
            seen_absent = 0 if present.strip() else seen_absent + 1
            await trio.sleep(_POLL_S)


@attrs.frozen(kw_only=True)
class DockerPlatform:
    """Runs containers with Docker; see `Platform`."""

    name: ClassVar = "docker"
    isolates: ClassVar = True

    launcher: Launcher
    client: Client
    options: RunOptions
    debug: bool = False

    async def prepare(self, image: str) -> str:
        """The id of `image` here; pulls it once if it is missing. All tasks run the very same image."""
        if Path(image).is_dir():  # noqa: ASYNC240  one look, once in a pilot's life
            raise ImageUnusable(f"the image {image} is a directory; Docker needs an image's name, such as name:tag")
        if (found := await self._image_id(image)) is None:
            await self._pull(image)
            found = await self._image_id(image)
        if found is None:
            raise ImageUnusable(f"the image {image} was pulled, but the Docker daemon does not have it")
        return found

    def path_inside(self, mount: Mount) -> Path:
        """The mount's target."""
        return mount.target

    async def check(self, spec: ContainerSpec) -> None:
        """Run `true` in place of what the image runs; an image without it is as good, once there is a container."""
        async with self._start(attrs.evolve(spec, args=()), entrypoint=_TRUE) as container:
            code = await container.wait()
        said = _tail_of(spec.stderr).strip()
        if code != 0 and not lacks(_TRUE, said):
            raise ContainerError(f"Docker ended with exit code {code}: {said}")

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """Run one container."""
        return self._start(spec)

    @asynccontextmanager
    async def _start(self, spec: ContainerSpec, entrypoint: str = "") -> AsyncIterator[Container]:
        spec = attrs.evolve(spec, mounts=checked(spec.mounts))
        environment = passed(spec.environment)
        env_file, id_file = spec.scratch / "environment", spec.scratch / "container-id"
        _make_scratch(spec.scratch, env_file, environment.file)
        id_file.unlink(missing_ok=True)  # the client refuses to write over one
        words = run_words(
            spec,
            self.options,
            env_file=env_file,
            id_file=id_file,
            by_client=environment.by_client,
            entrypoint=entrypoint,
        )
        command = Command(
            argv=(self.client.program, *(["--debug"] if self.debug else []), *words),
            env={**environment.by_client, **self.client.env},
            cwd=Path("/"),
            stdout=spec.stdout,
            stderr=spec.stderr,
        )
        container: _Running | None = None
        meter = Meter(id_file)
        try:
            async with self.launcher.run(command) as process:
                container = _Running(process, spec, meter)
                yield container
        finally:
            if container is None or not container.removed_itself:
                await self._remove(spec.name, meter)  # noqa: ASYNC102  it is shielded inside

    async def _remove(self, name: str, meter: Meter) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVAL_LIMIT_S) as limit:
            try:
                await self.client.remove(name)
            except ContainerError as error:
                log.error("a container cannot be removed", container=name, error=str(error))
            else:
                return
        if limit.cancelled_caught:
            log.error("a container is not gone in time", container=name, limit_s=REMOVAL_LIMIT_S)
        if meter.kill():
            log.warning("killed a container without the daemon", container=name)

    async def remove_leftovers(self) -> None:
        """Remove the containers of dead pilots."""
        me = Owner.this_process()
        listing = await self.client.ask(
            "ps", "--all", "--no-trunc", "--filter", f"label={OWNER_LABEL}", "--format", LISTING_FORMAT
        )
        for container, label, running in leftover_rows(listing):
            if is_leftover(label, running=running, me=me):
                log.warning("removing a container that a dead pilot left", container=container[:12], running=running)
                await self._remove_id(container)

    async def _remove_id(self, container: str) -> None:
        try:
            await self.client.ask("rm", "--force", "--volumes", container)
        except ContainerError as error:  # another pilot may be at it too
            log.warning("a leftover is not removed", container=container[:12], error=str(error))

    async def _image_id(self, image: str) -> str | None:
        try:
            return (await self.client.ask("image", "inspect", "--format", "{{.Id}}", image)).strip() or None
        except ContainerError:
            return None  # not there; or if the daemon does not answer, the pull says so

    async def _pull(self, image: str) -> None:
        log.info("pulling the image", image=image)
        began = trio.current_time()
        with TemporaryDirectory(prefix="ewms-docker-pull-") as directory:
            out, err = Path(directory, "out"), Path(directory, "err")
            command = Command(
                argv=(self.client.program, "pull", image), env=self.client.env, cwd=Path("/"), stdout=out, stderr=err
            )
            code: int | None = None
            with trio.move_on_after(PULL_LIMIT_S):
                async with self.launcher.run(command) as process, trio.open_nursery() as nursery:
                    nursery.start_soon(_tell_progress, image, out)
                    code = (await process.wait()).code
                    nursery.cancel_scope.cancel()
            if code is None:
                raise ImageUnusable(f"the image {image} was not pulled within {PULL_LIMIT_S:g} s: {_last_line(out)}")
            if code != 0:
                said = _tail_of(err).strip()
                raise ImageUnusable(f"the image {image} cannot be pulled (exit code {code}): {said}")
        log.info("pulled the image", image=image, took_s=round(trio.current_time() - began, 1))


class _Running:
    """A container that a client is attached to; see `Container`."""

    def __init__(self, process: Process, spec: ContainerSpec, meter: Meter) -> None:
        self._process = process
        self._spec = spec
        self._meter = meter
        self.removed_itself = False
        """Whether its client saw it end and go: codes above may as well be the client's own death."""

    @property
    def usage(self) -> Usage:
        """As it was seen last."""
        return self._meter.usage

    async def memory(self) -> int | None:
        """Of all its processes."""
        return await self._meter.memory()

    async def wait(self) -> int:
        """Wait until it ended; its exit code."""
        ended, problem = None, None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._meter.look_for_ever)
            try:
                ended = await self._process.wait()
            except ContainerError as error:
                problem = error  # raised outside: a nursery would make a group of it
            nursery.cancel_scope.cancel()
        if ended is None:
            raise problem or ContainerError("the container's client was lost")
        self.removed_itself = ended.code < _RUNTIME_FAILED
        if ended.code == _RUNTIME_FAILED and (said := runtime_complaint(_tail_of(self._spec.stderr))):
            raise ContainerError(f"Docker could not run the container: {said}")
        return ended.code


@asynccontextmanager
async def open_docker(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[DockerPlatform]:
    """The platform as a pilot's settings want it, after its self-check.

    Raises:
        ContainerError: there is no Docker here that this user may use, or a task's environment cannot be given
            through it.
    """
    program = shutil.which("docker", path=settings.path)
    if program is None:
        raise ContainerError(f"`docker` was not found (PATH={settings.path})")
    for values in (settings.task_env_json, settings.init_env_json):
        passed(environment(values))
    own = {
        "PATH": settings.path,
        "HOME": settings.home,
        "DOCKER_HOST": settings.docker_host,
        "DOCKER_CONFIG": settings.docker_config,
    }
    client = Client(program, {name: value for name, value in own.items() if value})
    me = Owner.this_process()
    options = RunOptions(owner=str(me), user=_user(await _daemon_info(client)), shm_size=settings.docker_shm_size)
    platform = DockerPlatform(launcher=launcher, client=client, options=options, debug=settings.container_debug)
    await platform.remove_leftovers()
    async with launcher.run(_reaper(client, me)):
        yield platform


def _reaper(client: Client, me: Owner) -> Command:
    return Command(
        argv=(
            *(sys.executable, "-I", "-S", dockerreaper.__file__),
            *(client.program, f"{OWNER_LABEL}={me}", str(me.pid), str(me.started)),
        ),
        env=client.env,
        cwd=Path("/"),
        stdout=Path(os.devnull),
        stderr=Path(os.devnull),
        term_wait=dockerreaper.TIME_S,
    )


async def _daemon_info(client: Client) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = json.loads(await client.ask("info", "--format", "{{json .}}"))
    except ContainerError as error:
        raise ContainerError(f"the Docker daemon cannot be used by this user: {error}") from error
    if errors := info.get("ServerErrors"):
        raise ContainerError(f"the Docker daemon cannot be used by this user: {'; '.join(errors)}")
    return info


def _user(info: Mapping[str, Any]) -> str:
    """Who a task runs as inside, so that on the host it is the pilot's user."""
    rootless = any("name=rootless" in option for option in info.get("SecurityOptions") or ())
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"


def _make_scratch(scratch: Path, env_file: Path, text: str) -> None:
    for name in SCRATCH:
        (scratch / name).mkdir(mode=0o700, exist_ok=True)
    # Closed to others before anything is in it: values may be secrets.
    env_file.touch(mode=0o600)
    env_file.write_bytes(text.encode())


async def _tell_progress(image: str, output: Path) -> None:
    told = ""
    while True:
        await trio.sleep(PULL_TELL_S)
        if (line := _last_line(output)) != told:
            log.info("still pulling the image", image=image, said=line)
            told = line


def _last_line(path: Path) -> str:
    lines = _tail_of(path).strip().splitlines()
    return lines[-1].strip() if lines else ""


def _tail_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        return file.read().decode(errors="replace")
