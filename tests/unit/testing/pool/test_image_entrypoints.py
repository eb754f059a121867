"""The images' entrypoints, run by this machine's shell with a stand-in for Python, and laid out as in an image."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ewms.contract import ENVFILE_NAME
from ewms.testing.pool.data import containers_dir

SAID = "versions: ewms 1.2.3, aiormq 7.2.4, python 3.13.5, apptainer 1.4.5\n"


@pytest.fixture
def opt(tmp_path: Path) -> Path:
    """What an image has in /opt/ewms."""
    directory = tmp_path / "opt" / "ewms"
    for info in ("ewms_htcondor-1.2.3", "aiormq-7.2.4", "trio-0.35.0"):
        (directory / "site" / f"{info}.dist-info").mkdir(parents=True)
    (directory / "versions").write_text("python 3.13.5, apptainer 1.4.5\n")
    for name in ("pilot-entrypoint.sh", "tms-entrypoint.sh", "say-versions.sh"):
        shutil.copy(containers_dir() / name, directory)
    return directory


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A `python3` that tells what it was asked for, in a directory for PATH."""
    program = tmp_path / "bin" / "python3"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" platform=$_EWMS_PILOT_CONTAINER_PLATFORM token=$TOKEN pid=$$\nexec sleep "${SLEEP:-0}"\n'
    )
    program.chmod(0o755)
    return program.parent


def run(
    python: Path, opt: Path, *command: str, which: str = "pilot", check: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """With `command`, a shell and its options, in the directory of a job."""
    environment = {"PATH": f"{python}:{os.defpath}", **env}
    arguments = ["--flag"] if which == "pilot" else []
    argv = [*command, str(opt / f"{which}-entrypoint.sh"), *arguments]
    job = opt.parents[1] / "job"
    job.mkdir(exist_ok=True)
    return subprocess.run(argv, cwd=job, env=environment, capture_output=True, text=True, check=check)


@pytest.fixture
def envfile(opt: Path) -> Path:
    path = opt.parents[1] / "job" / ENVFILE_NAME
    path.parent.mkdir()
    return path


def test_environment_comes_from_the_file(python: Path, opt: Path, envfile: Path) -> None:
    envfile.write_text("export TOKEN='s3cret'\n")
    done = run(python, opt, "sh")
    assert done.stdout.startswith("-m ewms pilot --flag platform=auto token=s3cret")
    assert done.stderr == SAID


@pytest.mark.parametrize("options", [("sh", "-x"), ("sh", "-v"), ("sh", "-xv")])
def test_tokens_are_not_echoed(python: Path, opt: Path, envfile: Path, options: tuple[str, ...]) -> None:
    envfile.write_text("export TOKEN='s3cret'\n")
    assert "s3cret" not in run(python, opt, *options).stderr


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_tokens_are_not_echoed_by_an_environment_file_that_asks_for_it(
    python: Path, opt: Path, envfile: Path, shell: str
) -> None:
    envfile.write_text("#!/bin/bash\nset -x\nexport TOKEN='s3cret'\nset -v\n")
    done = run(python, opt, shell)
    assert done.stdout.startswith("-m ewms pilot --flag platform=auto token=s3cret")
    assert done.stderr == SAID


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_an_environment_file_that_is_none_ends_with_a_word(python: Path, opt: Path, envfile: Path, shell: str) -> None:
    envfile.write_text("export TOKEN='s3cret\nif\n")
    done = run(python, opt, shell, check=False)
    assert (done.stdout, "s3cret" in done.stderr) == ("", False)
    assert "cannot be read" in done.stderr
    assert done.returncode != 0


def test_no_file_and_a_platform_that_was_chosen(python: Path, opt: Path) -> None:
    done = run(python, opt, "sh", _EWMS_PILOT_CONTAINER_PLATFORM="docker")
    assert done.stdout.startswith("-m ewms pilot --flag platform=docker token= ")


def test_a_tms_is_what_runs_without_arguments(python: Path, opt: Path) -> None:
    done = run(python, opt, "sh", which="tms")
    assert done.stdout.startswith("-m ewms tms platform=")
    assert done.stderr == SAID


def test_another_command_is_what_is_asked_for(python: Path, opt: Path) -> None:
    argv = ["sh", str(opt / "tms-entrypoint.sh"), "check", "tms"]
    done = subprocess.run(argv, env={"PATH": f"{python}:{os.defpath}"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-m ewms check tms platform=")


@pytest.mark.parametrize("which", ["pilot", "tms"])
def test_versions_are_no_condition(python: Path, opt: Path, which: str) -> None:
    (opt / "versions").unlink()
    shutil.rmtree(opt / "site")
    done = run(python, opt, "sh", which=which)
    assert done.stdout.startswith("-m ewms ")
    assert done.stderr == "versions: \n"


@pytest.mark.parametrize("which", ["pilot", "tms"])
def test_the_program_gets_the_signal_itself(python: Path, opt: Path, which: str) -> None:
    environment = {"PATH": f"{python}:{os.defpath}", "SLEEP": "60"}
    argv = ["sh", str(opt / f"{which}-entrypoint.sh")]
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().rstrip().endswith(f"pid={process.pid}")
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
