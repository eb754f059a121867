"""Images in other forms become directories: each once for all pilots of one user on one machine (`imagestore.py`)."""

import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot.containers import imagestore
from ewms.pilot.containers.base import ContainerError, ImageUnusable
from ewms.pilot.containers.imagestore import About, ImageStore
from ewms.pilot.containers.processes import Command, Launcher
from ewms.pilot.directories import read_tail, remove_tree, tree_size

log = structlog.stdlib.get_logger(__name__)

CLEANING_LIMIT_S: Final = 20.0
"""For removing what a conversion left; what is still there goes with the next one."""
_TAIL: Final = 2000
_DISK_FULL: Final = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)
_OCI_INDEX: Final = Path("cache") / "blob" / "index.json"


@attrs.frozen(kw_only=True)
class Converter:
    """Makes directory images with `apptainer build`."""

    launcher: Launcher
    program: str
    env: Mapping[str, str]
    """All of the runtime's own environment."""
    store: ImageStore

    async def directory_of(self, source: str) -> Path:
        """The directory form of `source`, which `apptainer build` understands; made if no pilot has made it yet.

        It stays as long as this pilot uses it; images that no pilot has used for long go.

        Raises:
            ImageUnusable: it cannot be converted, or not in time.
            ContainerError: there is no room for it here.
        """
        try:
            async with self.store.locked(source) as place:
                await self.store.prune()
                if not place.is_dir():
                    await self._convert(source, place)
                self.store.use(place)
                about = self.store.read_about(place) or About(source=source)
        except OSError as error:
            raise _no_room(source, self.store.root, error) from error
        # Whoever wonders which version of a moving tag was run finds it here.
        log.info("a converted image is used", path=str(place), image=source, **_in_words(about))
        return place

    async def _convert(self, source: str, place: Path) -> None:
        log.info("converting the image to a directory", image=source, to=str(place))
        began = trio.current_time()
        work = place.with_suffix(f".making-{secrets.token_hex(4)}")
        try:
            for name in ("tmp", "cache"):
                (work / name).mkdir(parents=True)
            with trio.move_on_after(imagestore.LIMIT_S) as limit:
                await self._build(source, work)
            if limit.cancelled_caught:
                raise ImageUnusable(
                    f"the image {source} was not converted within {imagestore.LIMIT_S:g} s: {_last_line(work)}"
                )
            size = await trio.to_thread.run_sync(tree_size, work / "image")
            about = About(source=source, digest=_digest_in(work / "cache"), converted=time.time(), bytes=size)
            self.store.write_about(place, about)
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
                with trio.move_on_after(imagestore.TELL_S):
                    ended = await process.wait()
                    break
                log.info("still converting the image", image=source, said=_last_line(work))
        if ended.code == 0:
            return
        said = read_tail(work / "stderr", _TAIL).strip()
        if _DISK_FULL.search(said):
            raise _no_room(source, self.store.root, said.splitlines()[-1])
        raise ImageUnusable(f"the image {source} cannot be converted (exit code {ended.code}): {said}")


def _digest_in(cache: Path) -> str:
    """What a registry's name stood for, from the runtime's own cache of the one conversion; "" if it does not say.

    The registry's own digest for an image in the OCI format; of Docker's older one Apptainer makes an OCI manifest.
    """
    try:
        manifests = json.loads((cache / _OCI_INDEX).read_text())["manifests"]
        (digest,) = {manifest["digest"] for manifest in manifests}
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(digest)


def _in_words(about: About) -> dict[str, str]:
    found = {"digest": about.digest} if about.digest else {}
    if about.converted:
        found["converted"] = datetime.fromtimestamp(about.converted, UTC).isoformat(timespec="seconds")
    return found


def _no_room(source: str, images: Path, why: object) -> ContainerError:
    return ContainerError(
        f"the image {source} cannot be converted in {images}: {why}; "
        "set _EWMS_PILOT_APPTAINER_BUILD_WORKDIR to another directory"
    )


def _last_line(work: Path) -> str:
    lines = read_tail(work / "stderr", _TAIL).strip().splitlines()
    return lines[-1].strip() if lines else ""
