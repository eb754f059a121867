"""Root file systems of Debian packages, made by mmdebstrap after the recipes in `containers/pool`, and cached."""

import platform
import shlex
import shutil
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import cattrs

from ewms.testing.pool.apt import find_mirror
from ewms.testing.pool.cache import Scratch, alone, cached
from ewms.testing.pool.data import containers_dir, digest
from ewms.testing.pool.steps import PoolUnavailable, Progress, run_step

# Nobody reads these here, and they are a third of the files.
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/lib/cni/*")
_APT: Final = Path("/etc/apt")


@attrs.frozen
class Recipe:
    """What is in a root file system."""

    suite: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    """Shell commands, run at the end with the root's directory as `$1`."""
    from_suite: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Other suites, and the packages that come from there; nothing else does."""

    def sources(self, mirror: str) -> list[str]:
        """The lines that tell apt about the suites."""
        return [f"deb {mirror} {suite} main" for suite in (self.suite, *self.from_suite)]

    def preferences(self) -> str:
        """What keeps apt from taking more than it should out of the other suites."""
        return "\n".join(
            f"Package: {names}\nPin: release n={suite}\nPin-Priority: {priority}\n"
            for suite, packages in self.from_suite.items()
            for names, priority in (("*", 50), (" ".join(packages), 990))
        )

    def mmdebstrap(self, mirror: str, target: Path, preferences: Path) -> list[str]:
        """The command that builds it."""
        return [
            "mmdebstrap",
            "--variant=minbase",
            "--mode=root",
            "--format=directory",
            # A mirror's index of a moving suite may be some days old.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=Acquire::Languages "none"',
            # Without a network, say so soon.
            '--aptopt=Acquire::http::Timeout "20"',
            # It is whole or thrown away: no need to wait for the disk.
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
            f"--include={','.join(self.packages)}",
            '--setup-hook=mkdir -p "$1"/etc/apt/preferences.d',
            f"--setup-hook=upload {shlex.quote(str(preferences))} /etc/apt/preferences.d/suites",
            *(f"--customize-hook={hook}" for hook in self.hooks),
            self.suite,
            str(target),
            *self.sources(mirror),
        ]


@asynccontextmanager
async def root_filesystem(name: str, *, cache_dir: Path, progress: Progress) -> AsyncIterator[Path]:
    """The directory of the root that `containers/pool/NAME.toml` describes; built on first use, kept while in use.

    Raises:
        PoolUnavailable: it cannot be built here.
    """
    recipe_file = containers_dir() / "pool" / f"{name}.toml"
    text = recipe_file.read_text()
    recipe = cattrs.structure(tomllib.loads(text), Recipe)

    async def build(scratch: Scratch) -> None:
        mirror = _mirror()
        # apt's locks refuse instead of waiting, and several roots are built at once.
        async with alone(cache_dir / "apt-get.lock", "installs mmdebstrap", progress=progress):
            await _have_mmdebstrap(progress, scratch.log)
        preferences = scratch.tmp / "preferences"
        preferences.write_text(recipe.preferences())
        await run_step(
            f"building the {name} ({recipe.suite}; only once)",
            recipe.mmdebstrap(mirror, scratch.new, preferences),
            progress=progress,
            log=scratch.log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(scratch.tmp), "LC_ALL": "C.UTF-8"},
        )

    key = digest(text, platform.machine(), *_LEFT_OUT)
    async with cached(cache_dir / name, key, build, progress=progress) as root:
        yield root


def _mirror() -> str:
    files = [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
    mirror = find_mirror((path.name, path.read_text()) for path in files if path.is_file())
    if mirror is None:
        raise PoolUnavailable(f"no Debian mirror in the apt sources of this machine ({_APT}); add one to sources.list")
    return mirror


async def _have_mmdebstrap(progress: Progress, log: Path) -> None:
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        raise PoolUnavailable("mmdebstrap is not installed, and there is no apt-get to install it with")
    install = [
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        "--option=DPkg::Lock::Timeout=120",
        "mmdebstrap",
    ]
    try:
        await _apt_get("installing mmdebstrap", install, progress, log)
    except PoolUnavailable:
        # Most likely this machine has no package lists yet, or old ones.
        await _apt_get("updating the package lists", ["apt-get", "update"], progress, log)
        await _apt_get("installing mmdebstrap", install, progress, log)


async def _apt_get(what: str, argv: Sequence[str], progress: Progress, log: Path) -> None:
    env = {"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    await run_step(what, argv, progress=progress, log=log, env=env)
