"""What a container of Apptainer runs that was begun before its task was known."""

import subprocess
from pathlib import Path

import pytest
import trio

from ewms.pilot.containers import apptainer, shellwords
from ewms.pilot.containers.begun import begin
from ewms.pilot.containers.processes import Command, open_launcher

PATIENCE = 60


def said_by_a_task(environment: dict[str, str], image: dict[str, str]) -> str:
    """The end of the script that waits, as it goes on with a task; the image's runscript is not run."""
    script = shellwords.TASKS + apptainer._AS_RUN + 'printf "%s|%s" "$APPTAINER_COMMAND" "${LD_LIBRARY_PATH-none}"'
    given = shellwords.particulars(environment, []).encode()
    found = subprocess.run(shellwords.argv(script), input=given, env=image, stdout=subprocess.PIPE, check=True)
    return found.stdout.decode()


@pytest.mark.parametrize(
    ("task", "image", "seen"),
    [
        (None, None, "none"),
        (None, "/.singularity.d/libs", "/.singularity.d/libs"),
        ("/mine", "/.singularity.d/libs", "/mine:/.singularity.d/libs"),
        ("/mine", None, "/mine:/.singularity.d/libs"),
    ],
)
def test_it_sees_what_apptainer_run_shows(task: str | None, image: str | None, seen: str) -> None:
    of_task, of_image = ({"LD_LIBRARY_PATH": each} if each else {} for each in (task, image))
    assert said_by_a_task(of_task, {"APPTAINER_COMMAND": "exec", **of_image}) == f"run|{seen}"


def test_it_says_that_it_waits(tmp_path: Path) -> None:
    script = f"exec 3> {tmp_path}/said\n{shellwords.WAIT}"
    subprocess.run(shellwords.argv(script), check=True)
    assert (tmp_path / "said").read_text() == "\n"


def test_it_ends_where_it_cannot_say_so() -> None:
    done = subprocess.run(shellwords.argv(f"{shellwords.WAIT}echo went on"), capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""


async def test_it_runs_nothing_of_the_task_when_it_is_not_wanted(tmp_path: Path) -> None:
    """Its standard input ends, a moment before it is killed."""
    command = Command(
        argv=shellwords.argv(f"{shellwords.WAIT}{shellwords.TASKS}echo > ran"),
        env={},
        cwd=tmp_path,
        stdin=None,
        stdout=tmp_path / "stdout",
        stderr=tmp_path / "stderr",
    )
    with trio.fail_after(PATIENCE):
        async with open_launcher() as launcher:
            await (await begin(launcher, command)).aclose()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("arguments", "ran"), [(None, b""), ([], b"0,"), (["", "a b"], b"2,,a b")])
def test_it_runs_a_task_only_if_it_was_told_of_one(arguments: list[str] | None, ran: bytes) -> None:
    script = f'set -- something of the image; {shellwords.TASKS}printf "%s," $#; IFS=,; printf %s "$*"'
    given = b"" if arguments is None else shellwords.particulars({}, arguments).encode()
    done = subprocess.run(shellwords.argv(script), input=given, stdout=subprocess.PIPE, check=False)
    assert done.stdout == ran
