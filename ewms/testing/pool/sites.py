"""Directories of Python packages for the Python of a root file system: this package and what it depends on.

They are filled from outside (the machine's pip settings, proxies and certificates work there) in two layers, so that a
change of our own code costs a second: what it depends on, and on top of that itself.
"""

import os
import platform
import re
import shutil
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing.pool.cache import Scratch, cached
from ewms.testing.pool.data import containers_dir, digest, file_digest
from ewms.testing.pool.steps import Progress, run_step
from ewms.testing.pool.wheels import DISTRIBUTION, requirements

_COMPILE: Final = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" python3 -m compileall -q -j 0 -s /mnt -p "$3" /mnt'


@attrs.frozen
class RootPython:
    """The Python of a root file system."""

    root: Path
    version: str
    """As `3.13`."""

    @classmethod
    def of(cls, root: Path) -> "RootPython":
        """The Python that `python3` means in `root`."""
        name = (root / "usr" / "bin" / "python3").readlink().name
        return cls(root, name.removeprefix("python"))

    @property
    def site_dir(self) -> str:
        """Where Debian's Python looks for packages that are not Debian's."""
        return f"/usr/local/lib/python{self.version}/dist-packages"


@attrs.frozen
class Needs:
    """What our package depends on: what pip is told to get."""

    name: str
    pip: tuple[str, ...]
    key: str
    """Another one for other packages."""

    @classmethod
    def of_extra(cls, extra: str, wheel: Path, *pins: str) -> "Needs":
        """The newest that one of the wheel's extras allows, within the requirements in `pins`."""
        return cls(extra, (f"{wheel}[{extra}]", *pins), digest(extra, *pins, *requirements(wheel)))

    @classmethod
    def of_lock(cls, lock: str) -> "Needs":
        """Exactly what `containers/locks/LOCK.txt` says: what a release's image has."""
        file = containers_dir() / "locks" / f"{lock}.txt"
        pip = ("--require-hashes", "--no-deps", "--requirement", str(file))
        return cls(f"{lock}-locked", pip, file_digest(file))


@asynccontextmanager
async def site(
    python: RootPython, needs: Needs, wheel: Path, *, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """A directory with `wheel` and what it needs, compiled for `python`.

    Raises:
        PoolUnavailable: pip could not get what is needed.
    """
    maker = containers_dir() / "make-site.sh"
    key = digest(needs.key, python.version, platform.machine(), maker.read_bytes())

    async def build_needs(scratch: Scratch) -> None:
        await run_step(
            f"getting the Python packages of ewms[{needs.name}] for Python {python.version}",
            ["/bin/sh", str(maker), str(scratch.new), python.version, *needs.pip],
            progress=progress,
            log=scratch.log,
            env={**os.environ, "PYTHON": sys.executable},
        )
        _remove_ourselves(scratch.new)
        await _compile(scratch.new, python, progress, scratch.log)

    async with cached(cache_dir / f"{needs.name}-needs", key, build_needs, progress=progress) as needed:

        async def build(scratch: Scratch) -> None:
            # Hard links: the files below are never written to again.
            await run_step(
                f"installing ewms[{needs.name}]",
                ["cp", "--archive", "--link", str(needed), str(scratch.new)],
                progress=progress,
                log=scratch.log,
            )
            await trio.to_thread.run_sync(_unpack, wheel, scratch.new)
            await _compile(scratch.new, python, progress, scratch.log)

        whole_key = digest(key, file_digest(wheel))
        async with cached(cache_dir / f"{needs.name}-site", whole_key, build, progress=progress) as whole:
            yield whole


def _remove_ourselves(target: Path) -> None:
    ours = re.compile(DISTRIBUTION.replace("-", "[-_.]") + r"-.*\.dist-info|ewms")
    for path in target.iterdir():
        if ours.fullmatch(path.name):
            shutil.rmtree(path)


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)


async def _compile(target: Path, python: RootPython, progress: Progress, log: Path) -> None:
    # By the root's own Python, which is not the one that runs here; in a mount namespace, so that the root is not
    # touched. What is compiled already is left alone.
    await run_step(
        f"compiling for Python {python.version}",
        ["unshare", "--mount", "/bin/sh", "-e", "-c", _COMPILE, "sh", str(target), str(python.root), python.site_dir],
        progress=progress,
        log=log,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def debian_version(root: Path, package: str) -> str:
    """The upstream version of a package in a root file system, as dpkg knows it: `25.14.1`."""
    status = (root / "var" / "lib" / "dpkg" / "status").read_text()
    found = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (?:\d+:)?([0-9.]+)", status, re.MULTILINE)
    assert found is not None, f"{package} is not in {root}"
    return found.group(1)
