"""Images in other forms become directories: each once for all pilots of one user on one machine.

WORKDIR/ewms-pilot-images-UID/KEY/            the directory image: whole, or not there
WORKDIR/ewms-pilot-images-UID/KEY.lock        held by who converts it; the kernel frees it when that pilot dies
WORKDIR/ewms-pilot-images-UID/KEY.making-*/   a conversion at work: what it makes, the runtime's temporary files and
                                              its cache, on one disk; what a killed pilot left goes with the next
"""

import fcntl
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot.containers.base import ContainerError, ImageUnusable
from ewms.pilot.containers.processes import Command, Launcher
from ewms.pilot.directories import read_tail, remove_tree

log = structlog.stdlib.get_logger(__name__)

LIMIT_S: Final = 3600.0
"""For one conversion, and as long for another pilot's."""
TELL_S: Final = 10.0
"""How often a conversion, or the wait for one, says how far it is."""
CLEANING_LIMIT_S: Final = 20.0
"""For removing what a conversion left; what is still there goes with the next one."""
_LOCK_POLL_S: Final = 0.5
_TAIL: Final = 2000
_DISK_FULL: Final = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Converter:
    """Makes directory images with `apptainer build`."""

    launcher: Launcher
    program: str
    env: Mapping[str, str]
    """All of the runtime's own environment."""
    images: Path

    async def directory_of(self, source: str) -> Path:
        """The directory form of `source`, which `apptainer build` understands; made if no pilot has made it yet.

        Raises:
            ImageUnusable: it cannot be converted, or not in time.
            ContainerError: there is no room for it here.
        """
        place = self.images / key_of(source)
        try:
            self.images.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with locked(place.with_suffix(".lock"), source):
                await self._remove_leftovers(place)
                if not place.is_dir():
                    await self._convert(source, place)
        except OSError as error:
            raise _no_room(source, self.images, error) from error
        return place

    async def _convert(self, source: str, place: Path) -> None:
        log.info("converting the image to a directory", image=source, to=str(place))
        began = trio.current_time()
        work = place.with_suffix(f".making-{secrets.token_hex(4)}")
        try:
            for name in ("tmp", "cache"):
                (work / name).mkdir(parents=True)
            with trio.move_on_after(LIMIT_S) as limit:
                await self._build(source, work)
            if limit.cancelled_caught:
                raise ImageUnusable(f"the image {source} was not converted within {LIMIT_S:g} s: {_last_line(work)}")
            (work / "image").rename(place)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
                await remove_tree(work)
        log.info("converted the image", image=source, took_s=round(trio.current_time() - began, 1))

    async def _build(self, source: str, work: Path) -> None:
        command = Command(
            argv=(self.program, "build", "--fix-perms", "--sandbox", str(work / "image"), source),
            env={"APPTAINER_TMPDIR": str(work / "tmp"), "APPTAINER_CACHEDIR": str(work / "cache"), **self.env},
            cwd=Path("/"),
            stdout=work / "stdout",
            stderr=work / "stderr",
        )
        async with self.launcher.run(command) as process:
            ended = None
            while ended is None:
                with trio.move_on_after(TELL_S):
                    ended = await process.wait()
                    break
                log.info("still converting the image", image=source, said=_last_line(work))
        if ended.code == 0:
            return
        said = read_tail(work / "stderr", _TAIL).strip()
        if _DISK_FULL.search(said):
            raise _no_room(source, self.images, said.splitlines()[-1])
        raise ImageUnusable(f"the image {source} cannot be converted (exit code {ended.code}): {said}")

    async def _remove_leftovers(self, place: Path) -> None:
        for left in place.parent.glob(f"{place.name}.making-*"):
            log.warning("removing what a killed pilot left of a conversion", path=str(left))
            await remove_tree(left)


def key_of(source: str) -> str:
    """The name of an image's directory: another one for a file that was replaced."""
    try:
        status = Path(source).stat()
    except OSError:
        identity = source  # in a registry
    else:
        identity = f"{source}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@asynccontextmanager
async def locked(path: Path, source: str) -> AsyncIterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when this process dies.

    Raises:
        ImageUnusable: another pilot had it for too long.
    """
    with path.open("w") as file:
        began = told = trio.current_time()
        while not _try_to_lock(file.fileno()):
            now = trio.current_time()
            if now - began > LIMIT_S:
                raise ImageUnusable(f"another pilot has not converted the image {source} within {LIMIT_S:g} s")
            if now - told >= TELL_S:
                log.info("waiting for another pilot that converts the image", image=source)
                told = now
            await trio.sleep(_LOCK_POLL_S)
        yield


def _try_to_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_room(source: str, images: Path, why: object) -> ContainerError:
    return ContainerError(
        f"the image {source} cannot be converted in {images}: {why}; "
        "set _EWMS_PILOT_APPTAINER_BUILD_WORKDIR to a directory with more room"
    )


def _last_line(work: Path) -> str:
    lines = read_tail(work / "stderr", _TAIL).strip().splitlines()
    return lines[-1].strip() if lines else ""
