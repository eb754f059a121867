"""What is said to Docker, word by word."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.containers.base import ContainerError, ContainerSpec, Mount
from ewms.pilot.containers.dockerwords import (
    HOME,
    RunOptions,
    lacks,
    leftover_rows,
    passed,
    run_words,
    runtime_complaint,
)

OPTIONS = RunOptions(owner="me", user="1000:100")


def spec(**more: Any) -> ContainerSpec:
    values: dict[str, Any] = {
        "name": "ewms-1",
        "image": "img:1",
        "args": ("run", "--me"),
        "environment": {},
        "mounts": (),
        "stdout": Path("/out"),
        "stderr": Path("/err"),
        "scratch": Path("/scratch"),
    }
    return ContainerSpec(**(values | more))


def words(options: RunOptions = OPTIONS, **more: Any) -> list[str]:
    return run_words(spec(**more), options, env_file=Path("/env"), id_file=Path("/id"), by_client=("LINES",))


def read_env_file(text: str) -> dict[str, str]:
    """As the docker command reads it."""
    found = {}
    for number, scanned in enumerate(text.split("\n")):
        line = scanned.removesuffix("\r").encode()
        assert len(line) < 64 * 1024
        shown = line.removeprefix(b"\xef\xbb\xbf" if number == 0 else b"").decode().lstrip()
        if shown and not shown.startswith("#"):
            name, _, value = shown.partition("=")
            assert not any(blank in name for blank in " \t")
            found[name] = value
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "x"), ("A", ""), ("A", " a=b='\"$#"), ("A.b-c", "ü☃"), ("A", "a\rb"), ("a", "\t"), ("LD_PRELOAD", "/x.so")],
)
def test_most_variables_stand_in_the_file(name: str, value: str) -> None:
    how = passed({name: value})
    assert how.by_client == {}
    assert read_env_file(how.file) == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "a\nb"), ("A", "a\r"), ("A", "x" * 100_000), ("#A", "x"), ("A B", "x"), ("Ä", "x"), ("A", "ü" * 40_000)],
)
def test_what_a_file_cannot_carry_goes_through_the_client(name: str, value: str) -> None:
    how = passed({name: value, "OTHER": "1"})
    assert how.by_client == {name: value}
    assert read_env_file(how.file) == {"OTHER": "1"}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "DOCKER_HOST", "PATH", "HOME", "http_proxy", "HTTPS_PROXY", "GODEBUG"])
def test_what_the_client_would_obey_is_refused(name: str) -> None:
    with pytest.raises(ContainerError, match=f"'{name}' cannot be set .* line breaks"):
        passed({name: "a\nb"})


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0=", codec="utf-8"), min_size=1), st.text()))
def test_every_variable_goes_exactly_one_way_and_whole(environment: dict[str, str]) -> None:
    environment = {f"_{name}": value for name, value in environment.items()}
    how = passed(environment)
    assert {**read_env_file(how.file), **how.by_client} == environment


def test_the_whole_command() -> None:
    given = words(mounts=(Mount(Path("/a,b"), Path("/in"), read_only=True),))
    assert " ".join(given) == (
        "run --rm --init --pull never --log-driver none --name ewms-1 --label ewms.pilot=me --user 1000:100 "
        f"--security-opt no-new-privileges --cidfile /id --env-file /env --env HOME={HOME} --env LINES "
        "--mount type=bind,source=/scratch/tmp,target=/tmp --mount type=bind,source=/scratch/var-tmp,target=/var/tmp "
        f'--mount type=bind,source=/scratch/home,target={HOME} --mount type=bind,"source=/a,b",target=/in,readonly '
        "img:1 run --me"
    )


def test_a_shared_memory_size_only_where_one_is_set() -> None:
    assert "--shm-size" not in words()
    assert "--shm-size 2g img:1" in " ".join(words(RunOptions(owner="me", user="0:0", shm_size="2g")))


def test_the_tasks_own_home_stays() -> None:
    assert f"HOME={HOME}" not in words(environment={"HOME": "/work"})


def test_a_mount_that_was_asked_for_comes_before_the_scratch() -> None:
    given = words(mounts=(Mount(Path("/data/tmp"), Path("/tmp")),))
    assert [word for word in given if "target=/tmp" in word] == ["type=bind,source=/data/tmp,target=/tmp"]


@pytest.mark.parametrize(
    ("stderr", "complaint"),
    [
        ("", ""),
        ("Traceback\nValueError: docker\n", ""),
        (
            "docker: Error response from daemon: invalid mount config.\nSee 'docker run --help'.\n",
            "Error response from daemon: invalid mount config.",
        ),
        (
            "task said this\ndocker: Error response from daemon: no space.\n\nRun 'docker run --help' for more",
            "Error response from daemon: no space.",
        ),
        (
            "invalid argument \"x\" for \"--shm-size\" flag: invalid size: 'x'\nSee 'docker run --help'.\n",
            "invalid argu",
        ),
        (
            'half a line\ntime="2026-01-01T00:00:00Z" level=error msg="error waiting for container: unexpected EOF"\n',
            "error waiting for container: unexpected EOF",
        ),
        ("docker: one\n" + "then\nthe task\nsaid\nmuch\n", ""),
    ],
)
def test_the_clients_own_words_are_told_from_the_tasks(stderr: str, complaint: str) -> None:
    said = runtime_complaint(stderr)
    assert said.startswith(complaint)
    assert bool(said) == bool(complaint)


@pytest.mark.parametrize(
    ("stderr", "lacking"),
    [
        ("", False),
        ("[FATAL tini (7)] exec true failed: No such file or directory\n", True),
        ('docker: … runc create failed: exec: "true": executable file not found in $PATH: unknown.\n', True),
        ('docker: … exec: "true": stat true: no such file or directory: unknown.\n', True),
        ("docker: Error response from daemon: error mounting /a: no such file or directory\n", False),
        ("[FATAL tini (7)] exec truely failed: No such file or directory\n", False),
        ("docker: Error response from daemon: no space left on device.\n", False),
    ],
)
def test_only_a_missing_program_is_no_fault_of_the_machine(stderr: str, lacking: bool) -> None:
    assert lacks("true", stderr) is lacking


def test_an_entrypoint_comes_before_the_image() -> None:
    options = RunOptions(owner="me", user="0:0")
    given = run_words(spec(), options, env_file=Path("/env"), id_file=Path("/id"), entrypoint="true")
    assert given[given.index("img:1") - 2 : given.index("img:1")] == ["--entrypoint", "true"]
    assert "--entrypoint" not in words()


def test_rows_of_the_listing() -> None:
    assert leftover_rows("abc\tb/n/1/2/3\trunning\ndef\tx\texted\n\n") == [
        ("abc", "b/n/1/2/3", True),
        ("def", "x", False),
    ]
