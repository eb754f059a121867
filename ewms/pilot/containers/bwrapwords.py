"""What bubblewrap is told, and what runs first inside: the same as `apptainer run --containall` gives a task; pure.

The table in `docs/isolation.md` compares the two line by line, and a test runs both for each line.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from ewms.pilot.containers.base import Mount

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCRATCH_PLACES: Final = (("tmp", "/tmp", 0o1777), ("var_tmp", "/var/tmp", 0o1777))  # noqa: S108  in the container
_SCRATCH_HOME: Final = ("home", 0o700)
SCRATCH_NAMES: Final = (*(name for name, _, _ in _SCRATCH_PLACES), _SCRATCH_HOME[0])
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
_WAIT: Final = """\
echo >&3
exec 3>&-
"""
"""Says that nothing of the worker's is needed any more but standard input."""
_TASKS: Final = """\
. /dev/stdin
exec < /dev/null
export LANG="${LANG-C}" PROMPT_COMMAND="${PROMPT_COMMAND-PS1=\\"$PS1\\"; unset PROMPT_COMMAND}"
"""
"""The task's environment and arguments: from standard input, so that no command line has them."""
_RUN: Final = """\
[ ! -x /.singularity.d/runscript ] || exec /.singularity.d/runscript "$@"
echo "No runscript found in the image, executing /bin/sh" >&2
exec /bin/sh "$@"
"""
RUN: Final = _IMAGES + _TASKS + _RUN
RUN_LATER: Final = _IMAGES + _WAIT + _TASKS + _RUN
CHECK: Final = f"""\
{_IMAGES}{_TASKS}
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


def scratch_places(home: str) -> list[str]:
    """Where the scratch's parts are mounted."""
    return [*(target for _, target, _ in _SCRATCH_PLACES), str(Path(home))]


def scratch_mounts(scratch: Path, home: str) -> list[tuple[Mount, int]]:
    """The container's /tmp, /var/tmp and HOME, and the mode of each."""
    name, mode = _SCRATCH_HOME
    places = (*_SCRATCH_PLACES, (name, home, mode))
    return [(Mount(scratch / name, Path(target)), mode) for name, target, mode in places]


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


def particulars(environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    """A shell script that sets exactly these; after the image's own scripts, as Apptainer does."""
    # `command`: the image's shell may have read-only variables of its own (bash: UID), and goes on then.
    lines = [f"command export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join([*lines, f"set -- {shlex.join(arguments)}\n"])
