"""The protocol that every container platform fulfils; the pilot knows nothing else of containers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs


@attrs.frozen
class Mount:
    """One bind mount; `mounts.py` decides whether it is safe."""

    source: Path
    target: Path
    read_only: bool = False


class Begun(Protocol):
    """A container that was begun before it was known what it is to run; see `StartsAhead`."""

    async def aclose(self) -> None:
        """Leave nothing of it; it may be gone or in use elsewhere no more by then."""


@attrs.frozen
class ContainerSpec:
    """All that one container run needs."""

    name: str
    """Unique on this machine."""
    image: str
    """As `Platform.prepare` returned it."""
    args: tuple[str, ...]
    environment: Mapping[str, str]
    """All of the container's environment beside the image's own; values are passed exactly, never on a command line."""
    mounts: tuple[Mount, ...]
    stdout: Path
    stderr: Path
    scratch: Path
    """A directory on disk for this run alone: the container's /tmp and HOME live in it."""
    begun: Begun | None = None
    """What `StartsAhead.begin` gave for this run's image, mounts and directories."""


@attrs.frozen
class Usage:
    """What a container used; None where its platform cannot say."""

    cpu_s: float | None = None
    peak_memory: int | None = None
    """Bytes."""


class Container(Protocol):
    """One running container."""

    @property
    def usage(self) -> Usage:
        """What it used, after it ended."""

    async def memory(self) -> int | None:
        """Bytes that it has now; None where its platform cannot say."""

    async def wait(self) -> int:
        """Wait until it ended; its exit code (128 + N when signal N ended it). Cancelled, it may be asked again."""


class Platform(Protocol):
    """Apptainer, Docker, … : prepares images and runs containers."""

    @property
    def name(self) -> str:
        """The platform's name in settings and logs."""

    @property
    def isolates(self) -> bool:
        """Whether a container sees its mounts only (and not the whole host)."""

    async def prepare(self, image: str) -> str:
        """Make `image` ready to run (pull it, convert it, or just check it); return what `ContainerSpec.image` takes.

        Raises:
            ImageUnusable: with what is wrong and what to do.
        """

    def path_inside(self, mount: Mount) -> Path:
        """Where a container of this platform sees what `mount` brings in."""

    async def check(self, spec: ContainerSpec) -> None:
        """See that a container with the image and the mounts of `spec` starts; nothing of the user's is run in it.

        Raises:
            ContainerError: the runtime does not work here.
        """

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """Run one container; leaving the context for whatever reason leaves no process of it behind.

        Raises:
            ContainerError: the runtime itself could not start it.
        """


@runtime_checkable
class StartsAhead(Protocol):
    """A platform that can do most of a start before it is known what is to run."""

    @property
    def scratch_names(self) -> Sequence[str]:
        """Directories in the scratch that it makes if they are not there, and whose modes it sets in any case.

        None: it cannot start ahead now.
        """

    async def begin(self, spec: ContainerSpec) -> Begun:
        """Begin a container with the image, mounts and streams of `spec`, which waits for arguments and environment.

        Raises:
            ContainerError: the runtime could not start it.
        """


class ContainerError(Exception):
    """The container runtime could not do what it was asked."""


class MountRefused(ContainerError):
    """A mount that is not safe, or not possible; says which and why."""


class ImageUnusable(ContainerError):
    """An image that no container can be started from."""
