"""The PyPI package `ewms-pilot`, the pilot that is in production now: with the Python that it needs, and as an image.

It does not install for the pool's own Python, so it comes with one of this machine's, and goes where that goes.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs

from ewms.testing.pool.cache import Scratch, cached
from ewms.testing.pool.data import digest
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.steps import Progress, PythonMissing, run_step

VERSION: Final = "1.0.5"
_NEEDS: Final = (f"ewms-pilot[rabbitmq]=={VERSION}", "htcondor<25")
"""It imports the bindings of version 1, which newer wheels do not have."""
_PYTHON: Final = "3.12"
"""That release takes this one only."""
_PYTHON_DIR: Final = "/opt/python"
_PACKAGES_DIR: Final = "/opt/ewms-pilot"
_BINDINGS: Final = {"PYTHONPATH": _PACKAGES_DIR, "LD_LIBRARY_PATH": f"{_PYTHON_DIR}/lib"}

_ENTRYPOINT: Final = f"""\
#!/bin/bash
# What the production image does: the environment that came with the job, then the pilot.
. ./ewms_htcondor_envfile.sh
export _EWMS_PILOT_CONTAINER_PLATFORM=apptainer
# It mounts nothing below /var, where the jobs of a pool on one machine have their directories.
EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST=$(mktemp -d)
export EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST
export {" ".join(f"{name}={value}" for name, value in _BINDINGS.items())}
exec {_PYTHON_DIR}/bin/python{_PYTHON} -m ewms_pilot
"""
# Hard links, as no image is ever written to; but what is replaced is removed first.
_ASSEMBLE: Final = f"""\
cp -al "$1" "$5"
mkdir "$5{_PYTHON_DIR}"
cp -a "$2/bin" "$2/lib" "$5{_PYTHON_DIR}"
rm -rf "$5{_PYTHON_DIR}/lib/python{_PYTHON}/test" "$5{_PYTHON_DIR}/lib/python{_PYTHON}/site-packages"
cp -al "$3" "$5{_PACKAGES_DIR}"
rm "$5/.singularity.d/runscript"
install -m 755 "$4" "$5/.singularity.d/runscript"
"""


@attrs.frozen
class PypiPilot:
    """The installed package, and the installation of the Python that it needs; both on this machine."""

    prefix: Path
    packages: Path

    async def show(self, inside: Namespace) -> None:
        """Bind both into a namespace."""
        await inside.bind(self.prefix, _PYTHON_DIR)
        await inside.bind(self.packages, _PACKAGES_DIR)

    @property
    def command_inside(self) -> tuple[str, Mapping[str, str]]:
        """Its Python where it is shown, and the environment that this needs."""
        return f"{_PYTHON_DIR}/bin/python{_PYTHON}", _BINDINGS

    @property
    def command_here(self) -> tuple[str, Mapping[str, str]]:
        """The same on this machine: HTCondor's bindings of version 1 are among its packages."""
        environment = {"PYTHONPATH": str(self.packages), "LD_LIBRARY_PATH": str(self.prefix / "lib")}
        return str(self.prefix / "bin" / f"python{_PYTHON}"), environment


@asynccontextmanager
async def pypi_pilot(*, cache_dir: Path, progress: Progress) -> AsyncIterator[PypiPilot]:
    """Install the package, on first use.

    Raises:
        PoolUnavailable: there is no such Python here, or pip could not get the package.
    """
    prefix = _prefix()

    async def build(scratch: Scratch) -> None:
        pip = [str(prefix / "bin" / f"python{_PYTHON}"), "-m", "pip", "install", "-qq", "--root-user-action", "ignore"]
        command = [*pip, "--target", str(scratch.new), *_NEEDS]
        await run_step(f"getting {_NEEDS[0]}", command, progress=progress, log=scratch.log)

    key = digest(*_NEEDS, str(prefix))
    async with cached(cache_dir / "pypi-pilot", key, build, progress=progress) as packages:
        yield PypiPilot(prefix, packages)


@asynccontextmanager
async def pypi_pilot_image(pilot: PypiPilot, base: Path, *, cache_dir: Path, progress: Progress) -> AsyncIterator[Path]:
    """A directory image that runs it, with all that `base` has, a pilot image of ours before any package is in it.

    Raises:
        PoolUnavailable: it could not be built.
    """

    async def build(scratch: Scratch) -> None:
        entrypoint = scratch.tmp / "entrypoint"
        entrypoint.write_text(_ENTRYPOINT)
        parts = [base, pilot.prefix, pilot.packages, entrypoint, scratch.new]
        command = ["/bin/sh", "-e", "-c", _ASSEMBLE, "sh", *map(str, parts)]
        await run_step("putting PyPI's pilot into an image", command, progress=progress, log=scratch.log)

    key = digest(base.name, pilot.packages.name, _ASSEMBLE, _ENTRYPOINT)
    async with cached(cache_dir / "pypi-pilot-image", key, build, progress=progress) as directory:
        yield directory


def _prefix() -> Path:
    """Where that Python is installed here: pyenv's, or one of the PATH; not Debian's, which has all of /usr."""
    name = f"python{_PYTHON}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in [*sorted(pyenv.glob(f"{_PYTHON}.*/bin/{name}")), *filter(None, [shutil.which(name)])]:
        ask = [str(candidate), "-I", "-c", "import sys; print(sys.base_prefix)"]
        done = subprocess.run(ask, check=False, capture_output=True, text=True)
        prefix = Path(done.stdout.strip())
        if done.returncode == 0 and prefix != Path("/usr"):
            return prefix
    raise PythonMissing(f"{_NEEDS[0]} needs Python {_PYTHON} in a directory of its own, which is not on this machine")
