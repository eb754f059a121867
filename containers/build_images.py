"""Build images of images.toml on this machine, with Docker or with Apptainer; it needs the standard library only.

    python3 containers/build_images.py --with docker --version v1.2.3 --wheel dist/ewms_htcondor-1.2.3-*.whl tms pilot

Python packages come from the locks, with pip; Debian's from where the base image says. What is built goes below build/:
for Apptainer, the directories as they stand on CVMFS. For Docker, images with the names and tags of a release.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTAINERS: Final = Path(__file__).resolve().parent
NAMES: Final = {"pilot": "ewms-pilot", "tms": "ewms-task-management-service"}
"""What runs in it → what it is called, in a registry and on CVMFS."""
CVMFS: Final = "containers/ewms/observation-management-service"
"""Where they are, below /cvmfs/icecube.opensciencegrid.org."""
PYTHON: Final = "3.13"
"""Of Debian trixie; the locks are for it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One entry of images.toml."""

    of: str
    recipe: str
    lock: str
    suffix: str

    def tag(self, version: str) -> str:
        """Name and tag, for the release v1.2.3: `ewms-pilot:v1.2.3-nats`."""
        return f"{NAMES[self.of]}:{version}{self.suffix}"


def images() -> dict[str, Image]:
    """All that there are."""
    table = tomllib.loads((CONTAINERS / "images.toml").read_text())
    return {name: Image(**entry) for name, entry in table["images"].items()}


def site(image: Image, wheel: Path, target: Path) -> Iterator[list[str]]:
    """The commands that fill an image's directory of Python packages."""
    make = ["sh", str(CONTAINERS / "make-site.sh"), str(target), PYTHON, "--no-deps"]
    yield [*make, "--require-hashes", "--requirement", str(CONTAINERS / "locks" / f"{image.lock}.txt")]
    yield [*make, str(wheel)]


def docker(image: Image, tag: str, site: str, root: str | None = None) -> list[str]:
    """The command that builds it, where `containers` and `site` are in the current directory."""
    options = _build_args(RECIPE=image.recipe, SITE=site, **({"ROOT": root} if root else {}))
    label = f"org.opencontainers.image.version={tag.rpartition(':')[2]}"
    build = ["docker", "build", "--file", "containers/Dockerfile", "--target", image.of]
    return [*build, *options, "--label", label, "--tag", tag, "."]


def apptainer(image: Image, target: Path, site: Path) -> list[str]:
    """The command that builds it as a directory, which is what CVMFS takes, and everybody may read."""
    options = _build_args(recipe=image.recipe, site=site, containers=CONTAINERS)
    definition = str(CONTAINERS / f"{image.of}.def")
    return ["apptainer", "build", "--fix-perms", "--sandbox", *options, str(target), definition]


def _build_args(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--build-arg", f"{key}={value}")]


def main(argv: list[str]) -> None:
    """Build what was asked for, one after the other; say what that is, one line each, at the end."""
    known = images()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", choices=sorted(known), metavar="IMAGE", help=", ".join(known))
    parser.add_argument("--wheel", type=Path, required=True, help="the package")
    parser.add_argument("--version", required=True, help="the release, as its tag: v1.2.3")
    parser.add_argument("--with", dest="builder", choices=["docker", "apptainer"], required=True)
    parser.add_argument("--registry", default="", help="what stands before the names of images for Docker")
    options = parser.parse_args(argv)
    built = []
    for name in options.names:
        image, packages = known[name], Path("build") / f"site-{name}"
        shutil.rmtree(packages, ignore_errors=True)
        for command in site(image, options.wheel, packages):
            subprocess.run(command, check=True)
        tag = image.tag(options.version)
        if options.builder == "docker":
            subprocess.run(docker(image, options.registry + tag, str(packages)), check=True)
            built.append(options.registry + tag)
        else:
            directory = Path("build") / "cvmfs" / CVMFS / tag
            directory.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(apptainer(image, directory, packages), check=True)
            built.append(str(directory))
    print("\n".join(built), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
