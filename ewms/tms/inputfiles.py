"""What an order asks to have transferred, as it is on disk: with links followed, and directories entered.

HTCondor reads those files as the TMS's user. It follows a link to a file, also one in the middle of a directory, and a
link to a directory that ends in a slash. At a link to a directory that is in another one it fails (25.14); another may
follow it, and so do we. A directory that is mounted a second time is the same one, whatever its name. (`inputnames`
has judged the names themselves. Whoever can change a link afterwards is a user of the access point; see
docs/security.md.)
"""

import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from ewms.tms.inputnames import Closed, closed_to_orders, is_url, meets, refuse

LARGEST: Final = 100_000
"""Files and directories in all that an order asks for: every worker gets them, and each of them is looked at."""

_EMPTY: Final = frozenset({"/dev/null", "/dev/zero"})
"""Nothing can be read there; many a home has its shell's history led there."""
_LINKS: Final = 40
"""Linux follows no more."""
_Identity = tuple[int, int]


def check_input_files(paths: Iterable[str], job_dir: Path, others: Iterable[Closed] = ()) -> None:
    """Look at what HTCondor would send; what is not there, or cannot be read, is HTCondor's to tell.

    `others`: what is closed to orders, too.

    Raises:
        OrderRefused: a path leads to something that is closed to orders, or holds such a thing, or it holds too much.
    """
    look: _Look | None = None
    for path in paths:
        if not is_url(path):
            look = look or _Look(_closed([*closed_to_orders(job_dir), *others, *_hidden_at_home()]))
            look.at(path)


def _hidden_at_home() -> Iterator[Closed]:
    """Our user's tokens, keys and settings, which HTCondor could read; by name, for an image may have no home."""
    with suppress(KeyError):  # a user without a name
        yield Closed(pwd.getpwuid(os.geteuid()).pw_dir, "what the TMS's user keeps hidden in its home", begins=(".",))


def _closed(places: Iterable[Closed]) -> list[Closed]:
    """By their names, and with links followed."""
    return [
        each for place in places for each in (place, attrs.evolve(place, directory=os.path.realpath(place.directory)))
    ]


def _there(place: Closed) -> Iterator[str]:
    """The directory, or what is closed in it."""
    if "" in place.begins:
        yield place.directory
        return
    with suppress(OSError), os.scandir(place.directory) as entries:
        # What a link leads to has another name, and is judged by that.
        yield from (each.path for each in entries if each.name.startswith(place.begins) and not each.is_symlink())


@attrs.define
class _Look:
    """At all that one order asks for."""

    closed: list[Closed]
    _identities: dict[_Identity, str] = attrs.field(init=False)
    """Of what is closed, to know it by other names."""
    _seen: set[_Identity] = attrs.field(init=False, factory=set)
    _left: int = attrs.field(init=False, factory=lambda: LARGEST)

    @_identities.default
    def _default_identities(self) -> dict[_Identity, str]:
        found = ((_identity(path), place.called) for place in self.closed for path in _there(place))
        return {identity: called for identity, called in found if identity is not None}

    def at(self, path: str) -> None:
        """Follow `path` wherever it leads; raises `OrderRefused`."""
        waiting = list(self._led_to(path, path))
        while waiting:
            directory = waiting.pop()
            identity = _identity(directory)
            if identity is None or identity in self._seen:
                continue
            self._seen.add(identity)
            self._is_open(path, identity, directory)
            waiting += self._below(path, directory, device=identity[0])

    def _is_open(self, path: str, identity: _Identity, place: str) -> None:
        if called := self._identities.get(identity):
            raise refuse(path, f"holds {called}, as {place}")

    def _below(self, path: str, directory: str, device: int) -> Iterator[str]:
        """Directories to enter next."""
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        raise refuse(path, f"holds too much: more than {LARGEST:,} files; use an archive")
                    self._is_open(path, (device, entry.inode()), entry.path)
                    if entry.is_symlink():
                        yield from self._led_to(path, entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        yield entry.path
        except OSError:
            return  # gone, or not ours to read: HTCondor is the same user

    def _led_to(self, path: str, link: str) -> Iterator[str]:
        """The directory that `link` is in the end, if it is one."""
        via = "" if link == path else f" by {link}"
        *links, real = _hops(link)
        # `/proc/self/cwd` leads to where whoever reads it is.
        for hop in links:
            for how, called in meets(hop, self.closed):
                if how == "inside":
                    raise refuse(path, f"leads through {called}{via}")
        if real in _EMPTY:
            return
        for how, called in meets(real, self.closed):
            raise refuse(path, f"leads {'into' if how == 'inside' else 'to what holds'} {called}{via}")
        for above in (real, *map(str, PurePosixPath(real).parents)):
            if same := self._identities.get(_identity(above) or (-1, -1)):
                raise refuse(path, f"leads into {same}{via}")
        if os.path.isdir(real):  # noqa: PTH112
            yield real


def _hops(path: str) -> list[str]:
    """Where the links are on the way of an absolute path, and last where it ends."""
    hops: list[str] = []
    here, ahead = "/", path.split("/")[::-1]
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        here = str(PurePosixPath(here).parent) if part == ".." else os.path.join(here, part)  # noqa: PTH118
        try:
            target = os.readlink(here)  # noqa: PTH115
        except OSError:
            continue
        hops.append(here)
        if len(hops) > _LINKS:
            break  # a circle, which leads nowhere
        here = "/" if target.startswith("/") else str(PurePosixPath(here).parent)
        ahead += target.split("/")[::-1]
    return [*hops, here]


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
