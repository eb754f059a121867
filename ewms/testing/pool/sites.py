"""Directories of Python packages for the Python of a root file system: this package with one of its extras.

They are filled from outside (the machine's pip settings, proxies and certificates work there) in two layers, so that a
change of our own code costs a second: what it depends on, and on top of that itself.
"""

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
from ewms.testing.pool.data import digest, file_digest
from ewms.testing.pool.steps import Progress, run_step
from ewms.testing.pool.wheels import DISTRIBUTION, requirements

# pip takes exactly the platforms that it is told: all that a libc 2.41 (trixie) runs, the newest first.
_GLIBC_MINORS: Final = range(41, 16, -1)
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


@asynccontextmanager
async def site(
    python: RootPython, extra: str, wheel: Path, *, cache_dir: Path, progress: Progress, pins: tuple[str, ...] = ()
) -> AsyncIterator[Path]:
    """A directory with `wheel`, what its `extra` needs (within the requirements in `pins`), compiled for `python`.

    Raises:
        PoolUnavailable: pip could not get what is needed.
    """
    needs = digest(extra, python.version, platform.machine(), *pins, *requirements(wheel))

    async def build_needs(scratch: Scratch) -> None:
        # pip looks at the file's name, and takes only what is a wheel's.
        await run_step(
            f"getting the Python packages of ewms[{extra}] for Python {python.version}",
            _pip_command(python, [f"{wheel}[{extra}]", *pins], scratch.new),
            progress=progress,
            log=scratch.log,
        )
        _remove_ourselves(scratch.new)
        _slim(scratch.new)
        await _compile(scratch.new, python, progress, scratch.log)

    async with cached(cache_dir / f"{extra}-needs", needs, build_needs, progress=progress) as needed:

        async def build(scratch: Scratch) -> None:
            # Hard links: the files below are never written to again.
            await run_step(
                f"installing ewms[{extra}]",
                ["cp", "--archive", "--link", str(needed), str(scratch.new)],
                progress=progress,
                log=scratch.log,
            )
            await trio.to_thread.run_sync(_unpack, wheel, scratch.new)
            await _compile(scratch.new, python, progress, scratch.log)

        key = digest(needs, file_digest(wheel))
        async with cached(cache_dir / f"{extra}-site", key, build, progress=progress) as whole:
            yield whole


def _pip_command(python: RootPython, what: list[str], target: Path) -> list[str]:
    platforms = [f"manylinux_2_{minor}_{platform.machine()}" for minor in _GLIBC_MINORS]
    return [
        *(sys.executable, "-m", "pip", "install", "-qq", "--no-compile", "--target", str(target)),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", python.version),
        *(word for name in platforms for word in ("--platform", name)),
        *what,
    ]


def _remove_ourselves(target: Path) -> None:
    ours = re.compile(DISTRIBUTION.replace("-", "[-_.]") + r"-.*\.dist-info|ewms|bin")
    for path in target.iterdir():
        if ours.fullmatch(path.name):
            shutil.rmtree(path)


def _slim(target: Path) -> None:
    """Leave out what only PyPy uses: half of all that a pilot needs."""
    for path in target.glob("zstandard/*cffi*"):
        path.unlink()


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
