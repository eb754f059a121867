"""The directory of one run of a worker: files in, files out, and the environment HTCondor would give it."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.testing.schedd import words

_STDOUT: Final = "_condor_stdout"
_STDERR: Final = "_condor_stderr"
_EXECUTABLE: Final = "condor_exec.exe"


class TransferFailed(Exception):
    """A file could not be transferred; the job is held. `subcode` is the errno."""

    def __init__(self, details: str, subcode: int) -> None:
        super().__init__(details)
        self.details = details
        self.subcode = subcode


@attrs.frozen
class Sandbox:
    """`scratch` is the worker's working directory; what is HTCondor's own lies beside it."""

    root: Path

    @property
    def scratch(self) -> Path:
        """Where the worker runs."""
        return self.root / "scratch"

    @property
    def own(self) -> Path:
        """HTCondor's own files for the job."""
        return self.root / "user"

    @property
    def stdout(self) -> Path:
        """The worker's standard output while it runs."""
        return self.scratch / _STDOUT

    @property
    def stderr(self) -> Path:
        """The worker's standard error while it runs."""
        return self.scratch / _STDERR

    def create(self) -> None:
        """Make the directories; only we may look into them, because envfiles hold tokens."""
        self.root.mkdir(mode=0o700, parents=True)
        self.scratch.mkdir()
        self.own.mkdir()

    def describe(self, job: Any, machine: Any, chirp: str) -> None:
        """Write the ads and the chirp configuration."""
        (self.own / ".job.ad").write_text(job.printOld())
        (self.own / ".machine.ad").write_text(machine.printOld())
        (self.own / ".chirp.config").write_text(chirp)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.root, ignore_errors=True)


# --- in ---


def receive_inputs(sandbox: Sandbox, job: Any) -> None:
    """Copy the input files into the sandbox; raises `TransferFailed`."""
    iwd = Path(job["Iwd"])
    if "Cmd" in job and job["TransferExecutable"]:
        _copy(iwd / job["Cmd"], sandbox.scratch / _EXECUTABLE)
        (sandbox.scratch / _EXECUTABLE).chmod(0o755)
    for name in _names(job.get("TransferInput", "")):
        if "://" in name:
            raise TransferFailed(f"|Error: no plugin for {name}", errno.EPROTONOSUPPORT)
        contents_only = name.endswith("/")
        _copy(iwd / name, sandbox.scratch if contents_only else sandbox.scratch / Path(name).name)


def command(job: Any, entrypoint: Sequence[str]) -> list[str]:
    """What to run: the job's executable, or what the image would run by itself."""
    given = words.arguments(job.get("Args", ""))
    if "Cmd" not in job:
        return [*entrypoint, *given]
    return [f"./{_EXECUTABLE}" if job["TransferExecutable"] else job["Cmd"], *given]


def environment(sandbox: Sandbox, job: Any, ours: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: HTCondor's variables and the job's own, and of `ours` only PATH and LANG."""
    scratch = str(sandbox.scratch)
    return {
        **{name: ours[name] for name in ("PATH", "LANG") if name in ours},
        "_CONDOR_CHIRP_CONFIG": str(sandbox.own / ".chirp.config"),
        "_CONDOR_JOB_AD": str(sandbox.own / ".job.ad"),
        "_CONDOR_JOB_IWD": scratch,
        "_CONDOR_MACHINE_AD": str(sandbox.own / ".machine.ad"),
        "_CONDOR_SCRATCH_DIR": scratch,
        "BATCH_SYSTEM": "HTCondor",
        "TEMP": scratch,
        "TMP": scratch,
        "TMPDIR": scratch,
        **words.variables(job.get("Environment", "")),
    }


# --- out ---


def deliver_outputs(sandbox: Sandbox, job: Any) -> None:
    """Copy standard output and error and the output files to where the description wants them.

    Raises:
        TransferFailed: an output file that is listed is not there.
    """
    iwd = Path(job["Iwd"])
    for attribute, source in (("Out", sandbox.stdout), ("Err", sandbox.stderr)):
        if attribute in job and source.exists():
            _copy(source, iwd / job[attribute])
    for name in _outputs(sandbox, job):
        _copy(sandbox.scratch / name, iwd / Path(name).name)


def _outputs(sandbox: Sandbox, job: Any) -> Iterable[str]:
    if "TransferOutput" in job:
        return _names(job["TransferOutput"].strip('"'))
    inputs = {Path(name).name for name in _names(job.get("TransferInput", ""))}
    known = inputs | {_STDOUT, _STDERR, _EXECUTABLE}
    return [path.name for path in sandbox.scratch.iterdir() if path.is_file() and path.name not in known]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    except OSError as error:
        number = error.errno or errno.EIO
        what = f"reading from file {source}: (errno {number}) {os.strerror(number)}"
        raise TransferFailed(f"1 total failures: first failure: {what}", number) from error
