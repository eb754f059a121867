"""What bubblewrap is told, and the script that it starts."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.containers import bwrapwords, shellwords
from ewms.pilot.containers.base import Mount
from ewms.pilot.containers.variables import check_names
from ewms.pilot.settings import PilotSettings, read
from ewms.settings import SettingsError

VIEW = bwrapwords.View(
    image=Path("/images/a:1"),
    layer=Path("/layers/1"),
    mounts=[Mount(Path("/work/io"), Path("/ewms-pilot-data/task-io")), Mount(Path("/cvmfs"), Path("/cvmfs"), True)],
    home="/home/me",
)
SHELLS = sorted({found for name in ("sh", "dash", "bash") if (found := shutil.which(name))})
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def pairs(words: list[str], option: str) -> list[tuple[str, str]]:
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == option]


def test_mounts_are_writable_only_where_they_may_be() -> None:
    words = bwrapwords.arguments(VIEW, {})
    assert ("/work/io", "/ewms-pilot-data/task-io") in pairs(words, "--bind")
    assert pairs(words, "--ro-bind") == [("/sys", "/sys"), ("/cvmfs", "/cvmfs")]


def test_the_layer_lies_over_the_image_and_the_root_is_read_only() -> None:
    words = bwrapwords.arguments(VIEW, {})
    at = words.index("--overlay-src")
    assert words[at : at + 6] == ["--overlay-src", "/images/a:1", "--overlay-src", "/layers/1", "--ro-overlay", "/"]


def test_images_see_the_variables_that_they_look_for() -> None:
    found = bwrapwords.runtime_variables("/images/a:1", "/home/me", ["/a", "/b"])
    assert found["HOME"] == "/home/me"
    assert found["APPTAINER_NAME"] == found["SINGULARITY_NAME"] == "a:1"
    assert found["APPTAINER_CONTAINER"] == found["SINGULARITY_CONTAINER"] == "/images/a:1"
    assert found["APPTAINER_BIND"] == "/a,/b"


@pytest.mark.parametrize("shell", SHELLS)
@given(value=VALUES)
def test_a_shell_sets_every_value_exactly(shell: str, value: str) -> None:
    script = shellwords.particulars({"VALUE": value}, [value, "", value]) + 'shift; printf "%s|" "$VALUE" "$@"'
    said = subprocess.run([shell], input=script.encode(), stdout=subprocess.PIPE, check=True, env={})
    assert said.stdout == f"{value}|{value}||{value}|".encode()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_the_shell_keeps_for_itself_does_not_end_it(shell: str) -> None:
    script = shellwords.particulars({"UID": "7", "VALUE": "set"}, []) + 'printf %s "$VALUE"'
    argv = [shell, *(["--posix"] if shell.endswith("bash") else [])]
    said = subprocess.run(argv, input=script.encode(), stdout=subprocess.PIPE, check=True, env={})
    assert said.stdout == b"set"


def test_both_scripts_are_scripts() -> None:
    for script in (bwrapwords.RUN, bwrapwords.RUN_LATER, bwrapwords.CHECK):
        subprocess.run(["/bin/sh", "-n", "-c", script], check=True)


def with_environment(*names: str) -> PilotSettings:
    environment = json.dumps(dict.fromkeys(names, "x"))
    needed = {"EWMS_PILOT_TASK_IMAGE": "unused", "EWMS_PILOT_QUEUE_INCOMING": "unused"}
    return read(needed | {"EWMS_PILOT_TASK_ENV_JSON": environment})


@pytest.mark.parametrize("name", ["HOME", "1ST", "A-B", "A\n", "Ä"])
def test_names_that_a_shell_cannot_set_are_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_names(with_environment("GOOD", name), "bubblewrap")
    (problem,) = caught.value.problems
    assert problem.startswith(f"EWMS_PILOT_TASK_ENV_JSON: the name {name!r} cannot be set in a container of bubblewrap")


def test_names_that_a_shell_can_set() -> None:
    check_names(with_environment("A", "_a1", "PATH", "LD_PRELOAD"), "Apptainer")
