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
_ADD_PACKAGE: Final = 'cp -al "$1" "$3"; rmdir "$3/opt/ewms/site"; cp -al "$2" "$3/opt/ewms/site"'
# What no step of a build needs, and root lacks where the machine is a container: Apptainer asks for all there are.
_DROPPED: Final = (
    *("AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "LINUX_IMMUTABLE", "MAC_ADMIN"),
    *("MAC_OVERRIDE", "PERFMON", "SYSLOG", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT", "SYS_RAWIO", "SYS_RESOURCE"),
    *("SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
)


@asynccontextmanager
async def image(
    name: str, arguments: Mapping[str, Path | str], *, inside: Namespace, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """A directory image after `containers/NAME.def`.

    `arguments` are its build arguments: texts, and entries of the cache, whose names say what is in them.

    Raises:
        PoolUnavailable: Apptainer could not build it.
    """
    containers = containers_dir()
    definition = containers / f"{name}.def"
    text = definition.read_text()

    async def build(scratch: Scratch) -> None:
        given = {"bootstrap": "localimage", "containers": containers, **arguments}
        options = [f"--build-arg={key}={value}" for key, value in given.items() if f"{{{{ {key} }}}}" in text]
        environment = {
            "TMPDIR": str(scratch.tmp),
            "APPTAINER_CACHEDIR": str(scratch.tmp),
            "APPTAINER_DROP_CAPS": ",".join(f"CAP_{name}" for name in _DROPPED),
        }
        await run_step(
            f"building the {name} image",
            inside.command(
                ["apptainer", "--quiet", "build", "--sandbox", *options, str(scratch.new), str(definition)],
                user="root",
                env=environment,
            ),
            progress=progress,
            log=scratch.log,
            env={},
        )

    key = digest(
        text,
        *(script.read_bytes() for script in sorted(containers.glob("*.sh")) if script.name in text),
        *(f"{key}={value.name if isinstance(value, Path) else value}" for key, value in arguments.items()),
    )
    async with cached(cache_dir / f"{name}-image", key, build, progress=progress) as directory:
        yield directory


@asynccontextmanager
async def bare_image(
    name: str, root: Path, *, inside: Namespace, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """The image `pilot` or `tms` before any package is in it.

    Raises:
        PoolUnavailable: Apptainer could not build it.
    """
    no_packages = cache_dir / "no-packages"
    no_packages.mkdir(exist_ok=True)
    arguments = {"root": root, "site": no_packages}
    async with image(name, arguments, inside=inside, cache_dir=cache_dir, progress=progress) as directory:
        yield directory


@asynccontextmanager
async def service_image(
    name: str, root: Path, site: Path, *, inside: Namespace, cache_dir: Path, progress: Progress
) -> AsyncIterator[Path]:
    """The image `pilot` or `tms`: what Apptainer builds without the package, and then that, so that a change is quick.

    Raises:
        PoolUnavailable: Apptainer could not build it.
    """
    async with bare_image(name, root, inside=inside, cache_dir=cache_dir, progress=progress) as base:

        async def build(scratch: Scratch) -> None:
            command = ["/bin/sh", "-e", "-c", _ADD_PACKAGE, "sh", str(base), str(site), str(scratch.new)]
            await run_step(f"putting the package into the {name} image", command, progress=progress, log=scratch.log)

        shelf = cache_dir / f"{name}-image-with-package"
        async with cached(shelf, digest(base.name, site.name), build, progress=progress) as directory:
            yield directory
