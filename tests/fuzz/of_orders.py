"""Orders: what a workflow's author chose is in the description, the environment and the arguments, and nothing more."""

import csv
import os
import posixpath
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import classad2
import htcondor2

from ewms.contract import ENVFILE_NAME
from ewms.pilot import arguments
from ewms.pilot.containers.base import Mount
from ewms.pilot.containers.mounts import mount_option, problems
from ewms.tms.condor.helper import _check_submit_line
from ewms.tms.envfile import envfile_text
from ewms.tms.errors import OrderRefused
from ewms.tms.settings import Settings
from ewms.tms.submission import Submission, build
from ewms.wms.converter import read
from ewms.wms.errors import WMSMalformed
from ewms.wms.models import StartOrder
from tests.fuzz.of_wms import order
from tests.fuzz.source import Source
from tests.fuzz.target import Target

_JOB_DIR: Final = Path("/scratch/jobs")
_SETTINGS: Final = Settings(
    wms_address="http://wms",
    no_auth=True,
    job_dir=_JOB_DIR,
    base_requirements="false",
    image_sources=(("docker", "docker://registry/pilot:{tag}"),),
)
_URL: Final = re.compile("[a-z][a-z0-9+.-]*://.", re.IGNORECASE | re.ASCII)
_OPTIONAL: Final = {"output", "error"}
_TEXTS: Final = (
    ("taskforce", "taskforce_uuid"),
    ("taskforce", "pilot_config", "tag"),
    ("taskforce", "pilot_config", "image_source"),
    ("taskforce", "worker_config", "condor_requirements"),
    ("taskforce", "worker_config", "worker_memory"),
    ("taskforce", "worker_config", "worker_disk"),
    ("task_directive", "task_image"),
    ("task_directive", "task_args"),
    ("task_directive", "init_image"),
    ("task_directive", "init_args"),
)
_NUMBERS: Final = (
    ("taskforce", "n_workers"),
    ("taskforce", "worker_config", "n_cores"),
    ("taskforce", "worker_config", "priority"),
    ("taskforce", "worker_config", "max_worker_runtime"),
)


def _set(value: Any, path: tuple[str, ...], new: Any) -> None:
    *parents, last = path
    for parent in parents:
        value = value[parent]
    value[last] = new


_STEPS: Final = ("", ".", "..", "scratch", "jobs", "x", "x:", ENVFILE_NAME)
_ASKED: Final = ("/", "/scratch", "/scratch/jobs", "/scratch/ewms", "/data/x:", "/proc/self", "https://x")


def _input_file(source: Source) -> str:
    return "/".join([source.choice(_ASKED), *(source.choice(_STEPS) for _ in range(source.integer(0, 4)))])


def _ordered(source: Source) -> StartOrder:
    asked = order()
    for _ in range(source.integer(1, 4)):
        match source.integer(0, 5):
            case 0:
                _set(asked, source.choice(_NUMBERS), source.integer(-2, 1 << 40))
            case 1:
                _set(asked, ("taskforce", "pilot_config", "input_files"), [source.text(), _input_file(source)])
            case 2:
                _set(asked, ("taskforce", "pilot_config", "environment"), {source.text(3): source.text()})
            case 3:
                _set(asked, ("task_directive", "task_env"), {source.text(3): source.text()})
            case _:
                _set(asked, source.choice(_TEXTS), source.text())
    return read(StartOrder, asked, "start order")


_PLAIN: Final = build(read(StartOrder, order(), "start order"), _SETTINGS, _JOB_DIR / "log")


def descriptions(data: bytes) -> None:
    """A start order: refused, or a description whose every command says what it says, and no other is in it."""
    source = Source(data)
    try:
        asked = _ordered(source)
        built = build(asked, _SETTINGS, _JOB_DIR / "log")
    except (WMSMalformed, OrderRefused):
        return
    assert built.description.keys() | _OPTIONAL == _PLAIN.description.keys() | _OPTIONAL
    for name, value in built.description.items():
        _check_submit_line(name, str(value))
    parsed = htcondor2.Submit(dict(built.description))
    assert {name.replace("MY.", "+"): text for name, text in parsed.items()} == {
        name: str(value).strip() for name, value in built.description.items()
    }
    # Macros are ours only: what has none of them is what HTCondor makes of it.
    for name in ("container_image", "transfer_input_files", "log", "universe", "submit_event_user_notes"):
        assert parsed.expand(name) == str(built.description[name]).strip(), name
    _requirements_stand(built)
    _files_are_those_asked_for(asked, built)


def _requirements_stand(built: Submission) -> None:
    """Where the operator's base is false (as here), an author's own requirements make no machine fit."""
    for text in built.expressions.values():
        try:
            classad2.ExprTree(text)
        except classad2.ClassAdException:
            return  # HTCondor's parser is asked before a submit, and refuses the order
    value = classad2.ExprTree(built.expressions["requirements"]).eval()
    assert value is False, f"the base was got around: {value!r}"


def _files_are_those_asked_for(asked: StartOrder, built: Submission) -> None:
    listed = str(built.description["transfer_input_files"]).split(",")
    assert listed == [*asked.taskforce.pilot_config.input_files, str(built.envfile_path)]
    assert posixpath.normpath(built.envfile_path.parent.parent) == str(_JOB_DIR)
    for path in listed[:-1]:
        assert posixpath.basename(path) != ENVFILE_NAME
        if _URL.match(path):
            continue
        # Both as Linux reads it where no links are, and as a text.
        for place in (PurePosixPath(posixpath.normpath(f"/{path.lstrip('/')}")), PurePosixPath(path)):
            assert place.is_absolute()
            assert not place.is_relative_to(_JOB_DIR)
            assert not _JOB_DIR.is_relative_to(place)
            assert not place.is_relative_to("/proc")
            assert ".." not in place.parts


def envfiles(data: bytes) -> None:
    """Values of an environment: refused, or exactly themselves (new-lines as blanks) after a real `sh` and `bash`."""
    source = Source(data)
    variables: dict[str, str] = {}
    for number in range(source.integer(1, 12)):
        name, value = f"EWMS_PILOT_V{number}", source.text(8)
        try:
            envfile_text({name: value})
        except OrderRefused:
            assert "\0" in value or any("\ud800" <= char <= "\udfff" for char in value)
        else:
            variables[name] = value
    foreign = source.text(3)
    try:
        text = envfile_text({**variables, foreign: "x"})
    except OrderRefused:
        text = envfile_text(variables)
    else:
        variables[foreign] = "x"
    expected = {name: value.replace("\n", " ") for name, value in variables.items()}
    for shell in ("sh", "bash"):
        assert _sourced(text, shell) == expected, shell


_SHELLS_OWN: Final = ("PWD", "SHLVL", "_", "OLDPWD")


def _sourced(text: str, shell: str) -> dict[str, str]:
    done = subprocess.run(
        [shell, "-c", ". /dev/stdin; exec env -0"],
        input=text.encode(),
        env={"PATH": os.defpath},
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == b""
    pairs = [pair.decode().partition("=") for pair in done.stdout.split(b"\0") if pair]
    return {name: value for name, _, value in pairs if name not in (*_SHELLS_OWN, "PATH")}


def words(data: bytes) -> None:
    """A task's arguments: refused, or words that no shell saw, each placeholder one path in its own word."""
    source = Source(data)
    text = source.text(10)
    paths = {"infile": source.text(3), "outfile": "/ewms-pilot-data/o ' \" $(X)"}
    try:
        found = arguments.split(text)
    except arguments.ArgumentsError:
        return
    filled = arguments.fill(found, paths)
    assert len(filled) == len(found)
    assert arguments.split(shlex.join(found)) == found
    for before, after in zip(found, filled, strict=True):
        if not any(spelling in before for each in arguments.PLACEHOLDERS.values() for spelling in each):
            assert after == before


_PLACES: Final = (
    "/data",
    "/cvmfs/x",
    "/etc",
    "/proc/self",
    "/usr",
    "/dev/shm",
    "/sys",
    "/run",
    "/",
    "//proc",
    "/./etc",
)
_KERNELS: Final = ("/proc", "/dev", "/sys")
_CLOSED: Final = (*_KERNELS, "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/root")


def mounts(data: bytes) -> None:
    """A mount: refused, or one that opens no place of the host's own, and one field for each of its parts."""
    source = Source(data)
    # Its source is resolved by then.
    mount = Mount(Path(posixpath.normpath(_path(source))), _path(source), source.chance())
    if not mount.source.is_absolute() or list(problems([mount])):
        return
    option = mount_option(mount)
    rows = list(csv.reader([option], strict=True))
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}", *["readonly"] * mount.read_only]
    assert rows == [fields]
    assert ".." not in mount.target.parts
    outside, inside = (posixpath.normpath(f"/{str(path).lstrip('/')}") for path in (mount.source, mount.target))
    assert outside != "/" != inside
    closed = _KERNELS if mount.read_only else _CLOSED
    assert not any(PurePosixPath(outside).is_relative_to(place) for place in closed), outside
    if not mount.read_only:
        assert not any(PurePosixPath(inside).is_relative_to(place) for place in _CLOSED), inside


def _path(source: Source) -> Path:
    place = source.choice(_PLACES) if source.chance() else ""
    text = f"{place}{source.text(3)}".replace("\0", "")
    return Path(text if source.chance(4) else f"/{text}")


def _choices() -> Iterator[bytes]:
    for number in range(0, 250, 6):
        yield bytes((number + step * step) % 256 for step in range(60))


TARGETS: Final = (
    Target("orders", "start orders, up to what HTCondor's own parser reads", descriptions, _choices),
    Target("envfiles", "values of environments, through real shells", envfiles, _choices),
    Target("arguments", "arguments of tasks", words, _choices),
    Target("mounts", "mounts of containers", mounts, _choices),
)
