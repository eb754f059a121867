"""What is said to Docker: the words of `docker run`, and how each environment variable is passed exactly; pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from ewms.pilot.containers.base import ContainerError, ContainerSpec, Mount
from ewms.pilot.containers.mounts import mount_option

OWNER_LABEL: Final = "ewms.pilot"
HOME: Final = "/home/ewms-task"
"""HOME in a container, unless the task's environment names another."""
SCRATCH: Final[Mapping[str, str]] = {"tmp": "/tmp", "var-tmp": "/var/tmp", "home": HOME}  # noqa: S108  inside
"""Directory in the scratch → where the container sees it."""

_FILE_LINE_LIMIT: Final = 60_000
"""Bytes; the reader of environment files takes lines up to 64 KiB."""
_FILE_NAME: Final = re.compile(r"[!-\"$-<>-~][!-<>-~]*\Z")
_CLIENTS_OWN: Final = re.compile(
    r"(LD_|GLIBC|MALLOC|GCONV|LOC|NLSPATH|RES_OPTIONS|HOSTALIASES|GO|CGO|DOCKER|BUILD|COMPOSE|MOBY|OTEL|SS[LH]_|XDG_"
    r"|[A-Z]*_?PROXY\Z|PATH\Z|HOME\Z|TMPDIR\Z|TERM|TZ)",
    re.IGNORECASE,
)
"""Names that would change what the client itself, or the C library under it, does."""

_CLIENTS_WORDS: Final = re.compile(
    r"(docker: |(time=\S+ level=(error|fatal) msg=\"?)?(?=error waiting for container))(?P<said>.*?)\"?$"
)
_ADVICE: Final = re.compile(r"(See|Run) 'docker (run )?--help'")
# The client's words for what the image does not have, and those of the init process, which looks for it then.
_NOT_IN_THE_IMAGE: Final = r'exec:? "?{program}"?(: executable file| failed: No such file|: stat .*no such file)'


@attrs.frozen
class Environment:
    """How a container's variables travel, so that every value arrives exactly and none stands on a command line."""

    file: str
    """The text of an `--env-file`."""
    by_client: Mapping[str, str]
    """What such a file cannot carry: `--env NAME` takes the value from the client's own environment."""


def passed(environment: Mapping[str, str]) -> Environment:
    """How to pass `environment`.

    The file comes first: what a task's author chose is then never in the environment of a program on the host.

    Raises:
        ContainerError: a variable that can be passed neither way.
    """
    by_client = {name: value for name, value in environment.items() if not _fits_a_file(name, value)}
    for name in by_client:
        if _CLIENTS_OWN.match(name):
            raise ContainerError(
                f"the environment variable {name!r} cannot be set in a Docker container to a value with line breaks, "
                f"or of more than {_FILE_LINE_LIMIT} bytes: the docker command itself would obey it"
            )
    lines = [f"{name}={value}\n" for name, value in environment.items() if name not in by_client]
    return Environment("".join(lines), by_client)


def _fits_a_file(name: str, value: str) -> bool:
    # Lines lose a final carriage return; a name with blanks, or `#` at its beginning, means something else there.
    return (
        _FILE_NAME.match(name) is not None
        and "\n" not in value
        and not value.endswith("\r")
        and len(name) + len(value.encode()) < _FILE_LINE_LIMIT
    )


@attrs.frozen(kw_only=True)
class RunOptions:
    """What all containers of one pilot have in common."""

    owner: str
    user: str
    """UID:GID in the container."""
    shm_size: str = ""


def run_words(
    spec: ContainerSpec,
    options: RunOptions,
    *,
    env_file: Path,
    id_file: Path,
    by_client: Iterable[str] = (),
    entrypoint: str = "",
) -> list[str]:
    """What follows `docker` on the command line: nothing of it is secret. `entrypoint` takes the place of the image's.

    - `--init`: as PID 1 a task would not die of its own signals, nor reap what it leaves behind.
    - `no-new-privileges`: a set-uid program of the image could become root, and leave set-uid files in the data hub.
    - `--log-driver none`: the daemon would keep a second copy of the output, without a limit.
    """
    words = [
        *("run", "--rm", "--init", "--pull", "never", "--log-driver", "none"),
        *("--name", spec.name, "--label", f"{OWNER_LABEL}={options.owner}"),
        *("--user", options.user, "--security-opt", "no-new-privileges"),
        *("--cidfile", str(id_file), "--env-file", str(env_file)),
    ]
    if "HOME" not in spec.environment:
        words += ["--env", f"HOME={HOME}"]
    for name in by_client:
        words += ["--env", name]
    for mount in (*scratch_mounts(spec), *spec.mounts):
        words += ["--mount", mount_option(mount)]
    if options.shm_size:
        words += ["--shm-size", options.shm_size]
    if entrypoint:
        words += ["--entrypoint", entrypoint]
    return [*words, spec.image, *spec.args]


def scratch_mounts(spec: ContainerSpec) -> list[Mount]:
    """The container's own room to write; a mount that the pilot was told to make comes first."""
    taken = {str(mount.target) for mount in spec.mounts}
    return [Mount(spec.scratch / name, Path(target)) for name, target in SCRATCH.items() if target not in taken]


def runtime_complaint(stderr: str) -> str:
    """What the client itself says at the end of a stderr that it shares with the task; "" if the task alone spoke.

    Exit code 125 is both the client's word for "could not be started" and what a task may end with.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()][-4:]
    said = [match["said"] for line in lines if (match := _CLIENTS_WORDS.match(line))]
    advice = [number for number, line in enumerate(lines) if _ADVICE.match(line)]
    if said:
        return said[-1]
    return " ".join(lines[: advice[0]]) if advice else ""


def lacks(program: str, stderr: str) -> bool:
    """Whether a container did start, as its stderr says, and only `program` was not in its image."""
    return re.search(_NOT_IN_THE_IMAGE.format(program=re.escape(program)), stderr) is not None


def leftover_rows(listing: str) -> Sequence[tuple[str, str, bool]]:
    """Rows of `docker ps` in `LISTING_FORMAT`: container id, owner's label, whether it runs."""
    rows = (line.split("\t") for line in listing.splitlines() if line.count("\t") == 2)
    return [(container, label, state in ("running", "paused", "restarting")) for container, label, state in rows]


LISTING_FORMAT: Final = f'{{{{.ID}}}}\t{{{{.Label "{OWNER_LABEL}"}}}}\t{{{{.State}}}}'
