"""Which mounts are safe. `resolved` looks at the file system; all the rules are pure.

Sources are judged after their symlinks are resolved, so that a link in an innocent place opens nothing. Paths are
compared as texts: this is done for each container, and pathlib takes milliseconds for it.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Final

import attrs

from ewms.pilot.containers.base import Mount, MountRefused

NEVER_FROM: Final = ("/proc", "/dev", "/sys", "/run", "/boot")
"""Host directories that no container sees."""
ONLY_READ: Final = (
    "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/root", "/var/log", "/var/cache", "/var/spool",
)  # fmt: skip
"""Host directories that no container writes to, and targets that no writable mount may cover."""
NEVER_WRITABLE_TARGET: Final = (*ONLY_READ, "/proc", "/dev", "/sys")


def checked(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """The mounts with their sources' symlinks resolved.

    Raises:
        MountRefused: one of them is not safe or not possible.
    """
    real = tuple(resolved(mount) for mount in mounts)
    for problem in problems(real):
        raise MountRefused(problem)
    return real


def keep_apart(mounts: Iterable[Mount], secrets: Iterable[Path], tasks: Path) -> None:
    """Refuse resolved mounts that would show a task the pilot's own files, or those of other tasks.

    `secrets` are files that no task may read, `tasks` is the directory of all tasks' files.

    Raises:
        MountRefused: one of them would.
    """
    hidden, tasks = [secret.resolve() for secret in secrets], tasks.resolve()
    for mount in mounts:
        if held := next((each for each in hidden if each.is_relative_to(mount.source)), None):
            raise MountRefused(f"cannot mount {mount.source}: {held.name} is in it, which is the pilot's own")
        if mount.source.is_relative_to(tasks) or tasks.is_relative_to(mount.source):
            raise MountRefused(f"cannot mount {mount.source}: the files of other tasks are there")


def resolved(mount: Mount) -> Mount:
    """`mount` with its source's symlinks resolved.

    Raises:
        MountRefused: the source is not an absolute path of a directory that exists.
    """
    if not mount.source.is_absolute():
        raise MountRefused(f"cannot mount {mount.source}: use an absolute path")
    try:
        source = os.path.realpath(mount.source, strict=True)
    except (OSError, RuntimeError) as error:
        raise MountRefused(f"cannot mount {mount.source}: {getattr(error, 'strerror', None) or error}") from error
    if not os.path.isdir(source):  # noqa: PTH112
        raise MountRefused(f"cannot mount {mount.source}: it is not a directory")
    return attrs.evolve(mount, source=Path(source))


def problems(mounts: Iterable[Mount]) -> Iterable[str]:
    """What is wrong with resolved mounts, one line each."""
    seen: dict[str, Mount] = {}
    for mount in mounts:
        target = _plain(mount.target)
        if reason := _refusal(mount, target):
            yield f"cannot mount {mount.source} at {mount.target}: {reason}"
        if (other := seen.get(target)) is not None:
            yield f"cannot mount {mount.source} at {mount.target}: {other.source} is mounted there too"
        seen[target] = mount


def mount_option(mount: Mount) -> str:
    """One `--mount` value of Apptainer or Docker; it is CSV, so a path with a comma or a quote is quoted."""
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    if mount.read_only:
        fields.append("readonly")
    special = set(',"\r\n')
    return ",".join(f'"{each.replace(chr(34), chr(34) * 2)}"' if set(each) & special else each for each in fields)


def _plain(path: PurePath) -> str:
    """The path as Linux reads it: POSIX, and so pathlib, lets `//proc` be another place than `/proc`."""
    text = str(path)
    return "/" + text.lstrip("/") if text.startswith("/") else text


def _refusal(mount: Mount, target: str) -> str | None:
    source = _plain(mount.source)
    if not target.startswith("/") or "/../" in f"{target}/" or target == "/":
        return "its target must be an absolute path without `..`, and not the root"
    if source == "/":
        return "the whole host may not be mounted"
    if place := _within(source, NEVER_FROM):
        return f"{place} of the host may not be mounted"
    if not mount.read_only and (place := _within(source, ONLY_READ)):
        return f"{place} of the host may only be mounted read-only"
    if not mount.read_only and (place := _within(target, NEVER_WRITABLE_TARGET)):
        return f"no writable mount may cover {place}"
    return None


def _within(path: str, places: Iterable[str]) -> str | None:
    return next((place for place in places if f"{path}/".startswith(f"{place}/")), None)
