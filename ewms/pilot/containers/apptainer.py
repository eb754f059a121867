"""Apptainer: one `apptainer run --containall` for each task, from a directory image.

What was measured with Apptainer 1.4 and why it is done so:
- The environment goes in as `APPTAINERENV_NAME` variables of the otherwise empty environment of the runtime, which is
  exact for every value up to 128 KiB (quotes, newlines, `=`, `$`, backslashes); `--env` parses CSV, and `--env-file`
  is evaluated by a shell. One name that is no shell identifier loses *all* variables, so such names are refused.
- `HOME` cannot be set that way: in the container it is the user's, as a directory in the task's scratch.
- `--workdir` puts /tmp, /var/tmp and HOME on disk; without it `--containall` gives them 64 MB of memory.
- An inherited `APPTAINER_BIND`, which HTCondor exports, would open the job's directory: nothing is inherited.
- The container is a PID namespace: when its first process dies, all of it is gone.
- A start takes a tenth of a second of the processor, nearly all of it before anything of the task is needed. So a
  container is begun with `exec` and a shell of the image, which waits for its task and goes on as `run` would. With an
  image that has no /bin/sh, or an Apptainer that closes file descriptor 3, that fails, and each task starts with `run`.
"""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Final

import attrs

from ewms.pilot.containers import scratch
from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, ImageUnusable, Mount
from ewms.pilot.containers.begun import BegunContainer, begin, begun_or_new
from ewms.pilot.containers.conversion import Converter
from ewms.pilot.containers.imagestore import ImageStore, Keeping
from ewms.pilot.containers.mounts import checked, mount_option
from ewms.pilot.containers.processes import Command, Launcher
from ewms.pilot.containers.shellwords import RUN, TASKS, WAIT, argv
from ewms.pilot.containers.variables import check_names
from ewms.pilot.directories import read_tail
from ewms.pilot.settings import PilotSettings

_TAIL: Final = 2000
_AS_RUN: Final = """\
export APPTAINER_COMMAND=run
case ${LD_LIBRARY_PATH-}: in
    : | */.singularity.d/libs:) ;;
    *) LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/.singularity.d/libs ;;
esac
"""
"""What Apptainer does with `run` after the task's environment."""
_RUN_LATER: Final = WAIT + TASKS + _AS_RUN + RUN
_NO_PROGRAM: Final = re.compile(r"executable file not found|no such file or directory|command not found", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class ApptainerPlatform:
    """Runs containers with Apptainer; see `Platform`."""

    name: ClassVar = "apptainer"
    isolates: ClassVar = True
    scratch_names: ClassVar = tuple(scratch.MODES)

    launcher: Launcher
    program: str
    runtime_env: Mapping[str, str]
    """All of the runtime's own environment."""
    converter: Converter
    must_be_directory: bool
    debug: bool = False

    @classmethod
    def from_settings(cls, launcher: Launcher, settings: PilotSettings) -> "ApptainerPlatform":
        """The platform as a pilot's settings want it.

        Raises:
            ContainerError: there is no Apptainer here.
            SettingsError: a task's environment cannot be given through it.
        """
        program = shutil.which("apptainer", path=settings.path)
        if program is None:
            raise ContainerError(f"`apptainer` was not found (PATH={settings.path})")
        check_names(settings, "Apptainer")
        own = {
            "PATH": settings.path,
            "HOME": settings.home,
            "APPTAINER_CACHEDIR": settings.apptainer_cachedir,
            "APPTAINER_TMPDIR": settings.apptainer_tmpdir,
        }
        env = {name: value for name, value in own.items() if value}
        images = settings.apptainer_build_workdir / f"ewms-pilot-images-{os.getuid()}"
        keeping = Keeping(
            unused_s=settings.apptainer_images_unused_time, total_bytes=settings.apptainer_images_total_bytes
        )
        store = ImageStore(root=images.absolute(), keeping=keeping)
        return cls(
            launcher=launcher,
            program=program,
            runtime_env=env,
            converter=Converter(launcher=launcher, program=program, env=env, store=store),
            must_be_directory=settings.apptainer_must_be_directory,
            debug=settings.container_debug,
        )

    async def prepare(self, image: str) -> str:
        """The directory image for `image`; converts other images once, when the settings allow it."""
        source = source_of(image)
        if Path(source).is_dir():  # noqa: ASYNC240  one look, once in a pilot's life
            return source
        if self.must_be_directory:
            raise ImageUnusable(
                f"the image {image} is not a directory; give an Apptainer directory image, or set "
                "_EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT=false to have it converted"
            )
        return str(await self.converter.directory_of(source))

    def path_inside(self, mount: Mount) -> Path:
        """The mount's target."""
        return mount.target

    async def check(self, spec: ContainerSpec) -> None:
        """Run `true` in place of what the image runs; an image without it is as good, once there is a container."""
        async with self._started(spec, "exec") as container:
            code = await container.wait()
        said = read_tail(spec.stderr, _TAIL).strip()
        if code != 0 and not _NO_PROGRAM.search(said):
            raise ContainerError(f"Apptainer ended with exit code {code}: {said}")

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """Run one container."""
        return self._started(spec, "run")

    async def begin(self, spec: ContainerSpec) -> BegunContainer:
        """See `StartsAhead`."""
        later = attrs.evolve(spec, args=argv(_RUN_LATER), environment={})
        return await begin(self.launcher, attrs.evolve(self._command(later, "exec"), stdin=None))

    def _started(self, spec: ContainerSpec, verb: str) -> AbstractAsyncContextManager[Container]:
        async def new() -> Command:
            return self._command(spec, verb)

        return begun_or_new(self.launcher, spec, new)

    def _command(self, spec: ContainerSpec, verb: str) -> Command:
        arguments = run_arguments(attrs.evolve(spec, mounts=checked(spec.mounts)), verb)
        scratch.make(spec.scratch)
        return Command(
            argv=(self.program, "-d" if self.debug else "-s", *arguments),
            env={**self.runtime_env, **{f"APPTAINERENV_{name}": text for name, text in spec.environment.items()}},
            cwd=Path("/"),
            stdout=spec.stdout,
            stderr=spec.stderr,
        )


def run_arguments(spec: ContainerSpec, verb: str = "run") -> list[str]:
    """What follows `apptainer [-s]` on the command line: nothing of it is secret."""
    words = [verb, "--containall", "--no-eval", "--workdir", str(spec.scratch)]
    for mount in spec.mounts:
        words += ["--mount", mount_option(mount)]
    return [*words, spec.image, *spec.args]


def source_of(image: str) -> str:
    """What `apptainer build` takes: a file, or else a name; one with neither a dot nor `://` is one of Docker's."""
    if Path(image).exists():
        return str(Path(image).absolute())
    if "." in image or "://" in image or Path(image).is_absolute():
        return image
    return f"docker://{image}"
