"""Versions of the TMS's image, where production has them: the one image at several paths, each with its own behaviour.

A version is told apart by its path, which Apptainer tells what runs in it: a `python3` before the image's own looks
whether there is something to be done first.
"""

from typing import Final

from ewms.testing.pool.booted import Booted

IMAGES: Final = (
    "/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/ewms-task-management-service"
)
SHIMS: Final = "/tmp/shims"
SETTINGS: Final = {"APPTAINERENV_PREPEND_PATH": SHIMS}
"""For the envfile."""

# What is sourced sees the arguments of `ewms`.
_PYTHON: Final = """\
#!/bin/sh
first=/tmp/shims/${APPTAINER_CONTAINER##*:}
if [ "$1 $2" = "-m ewms" ] && [ -e "$first" ]; then
    shift 2
    . "$first"
    set -- -m ewms "$@"
fi
exec /usr/bin/python3 "$@"
"""


async def publish(booted: Booted, base: str, version: str, first: str = "") -> str:
    """A version of the image `base`, which begins with the shell text `first`; its path."""
    path = f"{IMAGES}:{version}"
    for name, text in (("python3", _PYTHON), (version, first)):
        command = ["install", "-D", "-m", "755", "/dev/stdin", f"{SHIMS}/{name}"]
        await booted.inside.run(command, user="root", stdin=text.encode())
    await booted.inside.run(["mkdir", "-p", path], user="root")
    await booted.inside.run(["mount", "--bind", base, path], user="root")
    return path
