"""The images of a pool: built by the pool's own Apptainer, without a network, out of `containers/*.def`, and cached."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ewms.testing.pool.cache import Scratch, cached
from ewms.testing.pool.data import containers_dir, digest
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.steps import Progress, run_step

# Hard links: no image is ever written to.
_ADD_PACKAGE: Final = 'cp -al "$1" "$3"; rmdir "$3/opt/ewms-site"; cp -al "$2" "$3/opt/ewms-site"'


@asynccontextmanager
async def image(
    name: str, arguments: Mapping[str, Path], *, inside: Namespace, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """A directory image after `containers/NAME.def`.

    `arguments` are its build arguments: entries of the cache, whose names say what is in them, and `containers`.

    Raises:
        PoolUnavailable: Apptainer could not build it.
    """
    containers = containers_dir()
    definition = containers / f"{name}.def"

    async def build(scratch: Scratch) -> None:
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        await run_step(
            f"building the {name} image",
            inside.command(
                ["apptainer", "--quiet", "build", "--sandbox", *options, str(scratch.new), str(definition)],
                user="root",
                env={"TMPDIR": str(scratch.tmp), "APPTAINER_CACHEDIR": str(scratch.tmp)},
            ),
            progress=progress,
            log=scratch.log,
            env={},
        )

    key = digest(
        definition.read_text(),
        (containers / "pilot-entrypoint.sh").read_bytes(),
        *(f"{key}={path.name}" for key, path in arguments.items()),
    )
    async with cached(cache_dir / f"{name}-image", key, build, progress=progress) as directory:
        yield directory


@asynccontextmanager
async def pilot_image(
    root: Path, site: Path, *, inside: Namespace, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """The pilot image: what Apptainer builds without the package, and then the package, so that a change is quick.

    Raises:
        PoolUnavailable: Apptainer could not build it.
    """
    arguments = {"root": root, "site": _no_packages(cache_dir), "containers": containers_dir()}
    async with image("pilot", arguments, inside=inside, cache_dir=cache_dir, progress=progress) as base:

        async def build(scratch: Scratch) -> None:
            command = ["/bin/sh", "-e", "-c", _ADD_PACKAGE, "sh", str(base), str(site), str(scratch.new)]
            await run_step("putting the package into the pilot image", command, progress=progress, log=scratch.log)

        shelf = cache_dir / "pilot-image-with-package"
        async with cached(shelf, digest(base.name, site.name), build, progress=progress) as directory:
            yield directory


def _no_packages(cache_dir: Path) -> Path:
    path = cache_dir / "no-packages"
    path.mkdir(exist_ok=True)
    return path
