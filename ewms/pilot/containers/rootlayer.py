"""The thin layer over a directory image: mount points that the image lacks, and files of this machine and user.

Bubblewrap lays it over the image with one overlay mount, read-only. It is made once for all containers that mount the
same places, and again when the machine's name resolution changed.
"""

import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from ewms.pilot.containers.base import ContainerError

OF_THE_MACHINE: Final = ("/etc/hosts", "/etc/resolv.conf", "/etc/localtime")
"""Files that a container has from the machine, where it has them."""
_MOST_LINKS: Final = 40


@attrs.frozen
class Account:
    """Who the pilot is."""

    home: str
    passwd: str
    """A line of /etc/passwd."""
    groups: str
    """Lines of /etc/group."""

    @classmethod
    def of_this_process(cls) -> "Account":
        """Our own.

        Raises:
            ContainerError: the machine does not know this user, or a home for it.
        """
        uid = os.getuid()
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            raise ContainerError(f"this machine has no user with the id {uid}") from None
        if not PurePosixPath(user.pw_dir).is_relative_to("/") or PurePosixPath(user.pw_dir) == PurePosixPath("/"):
            raise ContainerError(f"the home of this user is {user.pw_dir!r}, where no container can have one")
        passwd = f"{user.pw_name}:x:{uid}:{user.pw_gid}:{user.pw_gecos}:{user.pw_dir}:{user.pw_shell}\n"
        groups = "".join(_group_lines({os.getgid(), *os.getgroups()}, user.pw_name))
        return cls(user.pw_dir, passwd, groups)


def _group_lines(gids: Iterable[int], member: str) -> Iterable[str]:
    for gid in sorted(gids):
        try:
            yield f"{grp.getgrgid(gid).gr_name}:x:{gid}:{member}\n"
        except KeyError:
            continue  # a group without a name is left out


@attrs.frozen
class RootLayer:
    """One layer on disk."""

    directory: Path
    targets: Mapping[str, Path]
    """Where something is to be mounted → the same place without symlinks of the image."""


class RootLayers:
    """The layers of one pilot, in a directory of their own below `parent`, which goes with `remove`.

    Raises:
        ContainerError: there can be no such directory.
    """

    def __init__(self, account: Account, parent: Path) -> None:
        self._account = account
        try:
            self._root = Path(tempfile.mkdtemp(prefix="ewms-layers-", dir=parent))
        except OSError as error:
            raise ContainerError(f"cannot make a directory in {parent}: {error.strerror}") from error
        self._made: dict[tuple[object, ...], RootLayer] = {}

    def made(self, image: str, targets: frozenset[str]) -> RootLayer | None:
        """The layer for containers of `image` in which `targets` are mounted, if there is one."""
        return self._made.get((image, targets, *map(_stamp, OF_THE_MACHINE)))

    def make(self, image: str, targets: frozenset[str]) -> RootLayer:
        """Make that layer.

        Raises:
            ContainerError: it cannot be made.
        """
        key = (image, targets, *map(_stamp, OF_THE_MACHINE))
        try:
            layer = self._made[key] = self._make(Path(image), targets)
        except OSError as error:
            raise ContainerError(f"cannot prepare the root of containers of {image}: {error}") from error
        return layer

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _make(self, image: Path, targets: Iterable[str]) -> RootLayer:
        layer = Path(tempfile.mkdtemp(dir=self._root))
        layer.chmod(0o755)
        places = {target: without_links(image, PurePosixPath(target)) for target in targets}
        for place in places.values():
            _below(layer, place).mkdir(parents=True, exist_ok=True)
        for name, content in self._files(image).items():
            path = _below(layer, without_links(image, PurePosixPath(name)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return RootLayer(layer, {target: Path(place) for target, place in places.items()})

    def _files(self, image: Path) -> dict[str, bytes]:
        found = {name: Path(name).read_bytes() for name in OF_THE_MACHINE if Path(name).is_file()}
        for name, added in (("/etc/passwd", self._account.passwd), ("/etc/group", self._account.groups)):
            # Its last part, too: a link must not lead to a file of the machine.
            own = _below(image, without_links(image, PurePosixPath(name, "x")).parent)
            if own.is_file():  # an image without users gets none
                text = own.read_bytes()
                found[name] = text + (b"" if not text or text.endswith(b"\n") else b"\n") + added.encode()
        return found


def without_links(image: Path, target: PurePosixPath) -> PurePosixPath:
    """`target` with the image's symlinks on the way to it followed, never out of the image; its last part stays.

    Raises:
        ContainerError: they go round in circles.
    """
    todo = list(target.parts[1:])
    done = PurePosixPath("/")
    links = 0
    while len(todo) > 1:
        part = todo.pop(0)
        if part == "..":
            done = done.parent
            continue
        path = _below(image, done / part)
        if not path.is_symlink():
            done /= part
            continue
        links += 1
        if links > _MOST_LINKS:
            raise ContainerError(f"cannot mount at {target}: the image's symlinks on the way to it have no end")
        link = PurePosixPath(os.readlink(path))  # noqa: PTH115  a pure path is wanted
        done = PurePosixPath("/") if link.is_absolute() else done
        todo = [*link.relative_to(link.anchor).parts, *todo]
    return done.joinpath(*todo)


def _below(root: Path, place: PurePosixPath) -> Path:
    return root / place.relative_to("/")


def _stamp(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116  three of these for each container
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
