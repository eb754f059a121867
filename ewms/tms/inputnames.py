"""The names of an order's input files, as far as they can be judged without looking (pure).

HTCondor reads those files on the access point, as the TMS's user, and sends a directory with all that is in it. So a
place that is closed to orders is closed in both directions: what is in it, and what it is in.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Final

import attrs

from ewms.contract import ENVFILE_NAME
from ewms.tms.errors import OrderRefused
from ewms.tms.submit_language import checked_file

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//.)?")
"""With the slashes and more it is a URL to HTCondor (`IsUrl`, condor_url.cpp); all else with `://` in it is a path."""
_FIELD: Final = "pilot_config.input_files"
_NOT_FILES: Final = ("/proc", "/sys", "/dev", "/run")
"""No data of anybody's, but environments and open files of processes, devices, and credentials that systemd gave."""


@attrs.frozen
class Closed:
    """A place that no order may fetch from."""

    directory: str
    called: str
    """In a refusal."""
    begins: tuple[str, ...] = ("",)
    """Only what has a name in it that begins with one of these; all of it by default."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How a path in it begins."""
        return tuple(slashed(self.directory) + each for each in self.begins)


def is_url(path: str) -> bool:
    """True: a worker fetches it, and the access point's files have no part in it."""
    found = _SCHEME.match(path)
    return found is not None and found.group(2) is not None


def closed_to_orders(job_dir: Path) -> list[Closed]:
    """Everywhere: where the envfiles of all taskforces are, with their queue tokens, and what are no files."""
    return [Closed(str(job_dir), "the TMS's own job directory"), *(Closed(place, place) for place in _NOT_FILES)]


def checked_input_files(paths: Iterable[str], job_dir: Path) -> list[str]:
    """`paths`, none of which names a place that is closed.

    Raises:
        OrderRefused: one of them does, or is no absolute path or URL.
    """
    closed = closed_to_orders(job_dir)
    return [_checked(path, closed) for path in paths]


def refuse(path: str, problem: str) -> OrderRefused:
    """The error about one of an order's input files."""
    return OrderRefused(f"{_FIELD}: {path!r} {problem}")


def meets(path: str, closed: Iterable[Closed]) -> Iterator[tuple[str, str]]:
    """(`inside` or `holds`, what) for each of the closed places that `path` is in, or is on the way to."""
    here = slashed(path)
    for place in closed:
        if here.startswith(place.prefixes):
            yield "inside", place.called
        elif any(prefix.startswith(here) for prefix in place.prefixes):
            yield "holds", place.called


def slashed(path: str) -> str:
    """The path as Linux reads it where no links are, with a slash at its end; POSIX lets `//x` be another than `/x`."""
    return normpath("/" + path.lstrip("/")).rstrip("/") + "/"


def _checked(path: str, closed: Iterable[Closed]) -> str:
    checked_file(_FIELD, path)
    if PurePosixPath(path).name == ENVFILE_NAME:
        raise refuse(path, "has the name of the TMS's own envfile")
    if _is_file_url(path):
        raise refuse(path, "is a file of whatever machine reads it; use a path")
    if is_url(path):
        return path
    if not path.startswith("/"):
        raise refuse(path, "is not an absolute path or a URL")
    for how, called in meets(path, closed):
        raise refuse(path, f"is inside {called}" if how == "inside" else f"holds {called}")
    # After a link, `..` is not what the text says: HTCondor, Linux and we might mean three places.
    if ".." in PurePosixPath(path).parts:
        raise refuse(path, "has '..' in it; write where it leads to")
    return path


def _is_file_url(path: str) -> bool:
    """HTCondor chooses who fetches a URL by the last part of a scheme such as `chtc+https`."""
    found = _SCHEME.match(path)
    return found is not None and re.split(r"[+.-]", found.group(1).lower())[-1] == "file"
