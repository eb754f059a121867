"""What bubblewrap is told, and what runs first inside: the same as `apptainer run --containall` gives a task; pure.

The table in `docs/isolation.md` compares the two line by line, and a test runs both for each line.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from ewms.pilot.containers import shellwords
from ewms.pilot.containers.base import Mount

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL_PLACES: Final = ("/dev", "/proc", "/sys")

# Its user has no privileges in it; network and host name are the pilot's, as with Apptainer.
_NAMESPACES: Final = ("--unshare-user", "--unshare-ipc", "--unshare-pid")
_KERNEL: Final = (
    "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--mqueue", "/dev/mqueue",  # noqa: S108
    "--proc", "/proc", "--ro-bind", "/sys", "/sys",
)  # fmt: skip

_IMAGES: Final = f"""\
unset PS1
export PATH={DEFAULT_PATH}
for __script in /.singularity.d/env/*.sh; do
    [ ! -f "$__script" ] || . "$__script"
    case $__script in */10-docker*.sh)
        for __place in {DEFAULT_PATH.replace(":", " ")}; do
            case :$PATH: in *:$__place:*) ;; *) PATH=$PATH:$__place ;; esac
        done
    esac
done
unset __script __place
"""
"""The image's own environment."""
RUN: Final = _IMAGES + shellwords.TASKS + shellwords.RUN
RUN_LATER: Final = _IMAGES + shellwords.WAIT + shellwords.TASKS + shellwords.RUN
CHECK: Final = f"""\
{_IMAGES}{shellwords.TASKS}
while read -r name value; do
    case $name in
        NoNewPrivs:) [ "$value" = 1 ] || {{ echo "it could gain privileges" >&2; exit 1; }} ;;
        CapEff: | CapPrm: | CapBnd:) [ "$value" = 0000000000000000 ] || {{ echo "it has privileges" >&2; exit 1; }} ;;
    esac
done < /proc/self/status
! ( : > /ewms-check ) 2> /dev/null || {{ echo "its root can be written to" >&2; exit 1; }}
[ -d /proc/1 ] && [ $$ -lt 100 ] || {{ echo "it sees other processes" >&2; exit 1; }}
"""
"""Says what is wrong, if the container is not what it is to be."""


@attrs.frozen(kw_only=True)
class View:
    """What one container sees."""

    image: Path
    layer: Path
    """Laid over the image: what is mounted where, and files of the machine."""
    mounts: Sequence[Mount]
    """The scratch's places too; every target is free of the image's symlinks (`rootlayer.py`)."""
    home: str
    """Where it starts."""


def arguments(view: View, variables: Mapping[str, str]) -> list[str]:
    """All of bubblewrap's options; nothing of it is secret."""
    words = [*_NAMESPACES, "--overlay-src", str(view.image), "--overlay-src", str(view.layer), "--ro-overlay", "/"]
    words += _KERNEL
    for mount in view.mounts:
        words += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), str(mount.target)]
    for name, value in variables.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", view.home]


def scratch_places(home: str) -> dict[str, str]:
    """Where the scratch's parts are mounted, by their names (`scratch.py`)."""
    return {"tmp": "/tmp", "var_tmp": "/var/tmp", "home": str(Path(home))}  # noqa: S108  in the container


def runtime_variables(image: str, home: str, targets: Iterable[str]) -> dict[str, str]:
    """The variables that Apptainer sets itself, for images and programs that look for them."""
    both = {
        "BIND": ",".join(targets),
        "CONTAINER": image,
        "ENVIRONMENT": "/.singularity.d/env/91-environment.sh",
        "NAME": PurePosixPath(image).name,
        "NO_EVAL": "1",
    }
    return {
        "HOME": home,
        "APPTAINER_APPNAME": "",
        "APPTAINER_COMMAND": "run",
        **{f"{brand}_{name}": value for brand in ("APPTAINER", "SINGULARITY") for name, value in both.items()},
    }
