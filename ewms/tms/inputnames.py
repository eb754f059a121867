"""The names of an order's input files, as far as they can be judged without looking (pure).

HTCondor reads those files on the access point, as the TMS's user, and sends a directory with all that is in it. So a
place that is closed to orders is closed in both directions: what is in it, and what it is in.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Final

from ewms.contract import ENVFILE_NAME
from ewms.tms.errors import OrderRefused
from ewms.tms.submit_language import checked_file

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//.)?")
"""With the slashes and more it is a URL to HTCondor (`IsUrl`, condor_url.cpp); all else with `://` in it is a path."""
_FIELD: Final = "pilot_config.input_files"
NOT_FILES: Final = {place: place for place in ("/proc", "/sys", "/dev", "/run")}
"""No data of anybody's, but environments and open files of processes, devices, and credentials that systemd gave."""


def is_url(path: str) -> bool:
    """True: a worker fetches it, and the access point's files have no part in it."""
    found = _SCHEME.match(path)
    return found is not None and found.group(2) is not None


def closed_to_orders(job_dir: Path) -> dict[str, str]:
    """Place → what it is called in a refusal: the envfiles of all taskforces, with their queue tokens, and no files."""
    return {plain(str(job_dir)): "the TMS's own job directory", **NOT_FILES}


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


def meets(path: str, closed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(`inside` or `holds`, what) for each of the closed places that a plain path is in, or is on the way to."""
    here = _slashed(path)
    for place, called in closed.items():
        if here.startswith(_slashed(place)):
            yield "inside", called
        elif _slashed(place).startswith(here):
            yield "holds", called


def plain(path: str) -> str:
    """The path as Linux reads it, where no links are: POSIX lets `//proc` be another place than `/proc`."""
    return normpath("/" + path.lstrip("/"))


def _slashed(path: str) -> str:
    return path if path.endswith("/") else f"{path}/"


def _checked(path: str, closed: Mapping[str, str]) -> str:
    checked_file(_FIELD, path)
    if PurePosixPath(path).name == ENVFILE_NAME:
        raise refuse(path, "has the name of the TMS's own envfile")
    if _is_file_url(path):
        raise refuse(path, "is a file of whatever machine reads it; use a path")
    if is_url(path):
        return path
    if not path.startswith("/"):
        raise refuse(path, "is not an absolute path or a URL")
    for how, called in meets(plain(path), closed):
        raise refuse(path, f"is inside {called}" if how == "inside" else f"holds {called}")
    # After a link, `..` is not what the text says: HTCondor, Linux and we might mean three places.
    if ".." in PurePosixPath(path).parts:
        raise refuse(path, "has '..' in it; write where it leads to")
    return path


def _is_file_url(path: str) -> bool:
    """HTCondor chooses who fetches a URL by the last part of a scheme such as `chtc+https`."""
    found = _SCHEME.match(path)
    return found is not None and re.split(r"[+.-]", found.group(1).lower())[-1] == "file"
