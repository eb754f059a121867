"""The pilot image's entrypoint, run by this machine's shell with a stand-in for Python."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ewms.contract import ENVFILE_NAME
from ewms.testing.pool.data import containers_dir

ENTRYPOINT = containers_dir() / "pilot-entrypoint.sh"


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


def run(python: Path, cwd: Path, *shell: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{python}:{os.defpath}", **env}
    command = [*shell, str(ENTRYPOINT), "--flag"]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=check)


def test_environment_comes_from_the_file(python: Path, tmp_path: Path) -> None:
    (tmp_path / ENVFILE_NAME).write_text("export TOKEN='s3cret'\n")
    done = run(python, tmp_path, "sh")
    assert done.stdout.startswith("-m ewms pilot --flag platform=auto token=s3cret")
    assert done.stderr == ""


@pytest.mark.parametrize("options", [("sh", "-x"), ("sh", "-v"), ("sh", "-xv")])
def test_tokens_are_not_echoed(python: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / ENVFILE_NAME).write_text("export TOKEN='s3cret'\n")
    assert "s3cret" not in run(python, tmp_path, *options).stderr


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_tokens_are_not_echoed_by_an_environment_file_that_asks_for_it(
    python: Path, tmp_path: Path, shell: str
) -> None:
    (tmp_path / ENVFILE_NAME).write_text("#!/bin/bash\nset -x\nexport TOKEN='s3cret'\nset -v\n")
    done = run(python, tmp_path, shell)
    assert done.stdout.startswith("-m ewms pilot --flag platform=auto token=s3cret")
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_an_environment_file_that_is_none_ends_with_a_word(python: Path, tmp_path: Path, shell: str) -> None:
    (tmp_path / ENVFILE_NAME).write_text("export TOKEN='s3cret\nif\n")
    done = run(python, tmp_path, shell, check=False)
    assert (done.stdout, "s3cret" in done.stderr) == ("", False)
    assert "cannot be read" in done.stderr
    assert done.returncode != 0


def test_no_file_and_a_platform_that_was_chosen(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, "sh", _EWMS_PILOT_CONTAINER_PLATFORM="docker")
    assert done.stdout.startswith("-m ewms pilot --flag platform=docker token= ")


def test_pilot_gets_the_signal_itself(python: Path, tmp_path: Path) -> None:
    environment = {"PATH": f"{python}:{os.defpath}", "SLEEP": "60"}
    with subprocess.Popen(
        ["sh", ENTRYPOINT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().rstrip().endswith(f"pid={process.pid}")
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM
