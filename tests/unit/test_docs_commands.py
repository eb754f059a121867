"""Every command in the documentation can be run: by a test that is named here, or its words are taken by our own CLI.

A command that is not one of ours and not in `RUN_BY` fails: give it a line there, with the test that runs it.
"""

import ast
import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import click
import pytest
from click.testing import CliRunner

from ewms.cli import main

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_WALK: Final = "tests/integration/test_operators_walk.py"
_TRY_IT: Final = "tests/integration/test_try_it_page.py::test_the_page_works_as_it_stands"

RUN_BY: Final = {
    r"python3 -m pip install nox": ".ci/run",
    r"pip install '?(\.|ewms-htcondor)\[(demo|tms|pilot)\]'?": "noxfile.py::install",
    r"python3 -m venv venv|mkdir -p /tmp/try.*|curl -s -H @wms-standin.header .*": _TRY_IT,
    # What systemd does on an access point.
    r"containers/systemd/install\.sh( --user)? (prod|dev)": "tests/integration/test_install.py",
    r"(install|systemctl|journalctl) (?!disable).*": _WALK,
    # The earlier TMS's units are not here: others of their names are.
    r"systemctl disable --now ewms-tms-prod-watcher.path ewms-tms-prod.service": (
        "tests/integration/test_systemd.py::test_the_earlier_units_are_stopped_as_the_page_on_moving_says"
    ),
    r"\./update_tms_image_symlink\.sh (v\d+\.\d+\.\d+|--check)": _WALK,
    # Without an index: with the wheel of what runs. With one, pip installs the same in `nox`.
    r"(python3 -m venv|ln -sfn) releases/.*|releases/v[\d.]+/bin/pip install ewms-htcondor\[tms\]==[\d.]+": (
        "tests/integration/test_venv_release.py::test_the_page_makes_a_release_that_runs"
    ),
    # Images.
    r"apptainer run .*\$image.*": "tests/integration/test_tms_image.py::as_the_page_says",
    r"docker run .*ewms-pilot:.*": "tests/integration/test_docker_images.py::as_the_page_says",
    r"python3 -m pip wheel .*": "noxfile.py::build_wheel",
    # With builders that only note what they are told; test_docker_images.py builds for real.
    r"(sudo )?python3 containers/build_images\.py .*": (
        "tests/unit/test_release_images.py::test_the_pages_commands_build"
    ),
}
"""A command that is not ours → the test that runs it (or the program that does)."""
OF_THE_SHELL: Final = {"cd", "set", "export", ".", "exit", "cat"}


@attrs.frozen
class Command:
    """One simple command, and where it stands."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)[:80]}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def blocks(text: str) -> Iterator[str]:
    """The shell text of a page: fenced `sh` blocks, and what stands behind a prompt in others."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "sh":
            yield block
        else:
            yield from re.findall(r"^\$ (.*)$", block, re.MULTILINE)


def inline(text: str) -> Iterator[str]:
    """Our own commands in the midst of a sentence."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(found.split()) for found in re.findall(r"`((?:ewms|nox) [^`]+)`", prose))


def simple_commands(shell: str) -> Iterator[tuple[str, ...]]:
    """Each command of a shell text, without assignments in front of it and redirections behind it."""
    # A comment swallows its line's end: so the mark for that stands at the beginning of the next line.
    lexer = shlex.shlex(shell.replace("\\\n", " ").replace("\n", "\n; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    is_redirected = False
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|()"):
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words:
                yield tuple(words)
            words, is_redirected = [], False
        elif set(token) <= set("<>&"):
            is_redirected = True
        elif not is_redirected:
            words.append(token)


def commands(*, in_prose: bool) -> Iterator[Command]:
    for page in PAGES:
        text = page.read_text()
        for shell in inline(text) if in_prose else blocks(text):
            yield from (Command(page.name, words) for words in simple_commands(shell))


def reads_files(words: Sequence[str]) -> bool:
    """Whether it is a command of ours that looks at day logs, and ends."""
    return any(".jel" in word for word in words) and (words[0] == "log" or "--once" in words)


COMMANDS: Final = [each for each in commands(in_prose=False) if each.words[0] not in OF_THE_SHELL]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 25
    shell = "A=1 x -a 'b c' && (y; z) > file # w\n. f | export B=$(u v)\nq \\\n  r\n"
    assert list(simple_commands(shell)) == [
        ("x", "-a", "b c"),
        ("y",),
        ("z",),
        (".", "f"),
        ("export", "B=$"),
        ("u", "v"),
        ("q", "r"),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_understands_the_blocks(page: Path) -> None:
    for block in blocks(page.read_text()):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_can_be_run(command: Command) -> None:
    program, *rest = command.words
    if program in ("ewms", "./ewms"):
        check_ewms(rest, whole=True)
    elif program == "python" and rest[0] == "-m" and rest[1].startswith("ewms."):
        check_help([sys.executable, "-m", rest[1], "--help"], rest[2:])
    elif program == "python" and rest[0].startswith("tests/"):
        check_help([sys.executable, rest[0], "--help"], rest[1:])
    elif program == "nox":
        check_nox(rest)
    else:
        check_table(command)


READERS: Final = [each for each in COMMANDS if each.words[0].endswith("ewms") and reads_files(each.words[1:])]


@pytest.mark.parametrize("command", READERS, ids=str)
def test_what_reads_logs_reads_them(command: Command, tmp_path: Path) -> None:
    """Run for real, with a captured log under each name that the page gives."""
    words = list(command.words[1:])
    uuid = next((word for word in words if word.startswith("TF-")), "TF-1")
    log = (ROOT / "tests/data/jel/factory-with-notes.jel").read_text()
    log = re.sub(r"^(\d{3}) \(\d+\.", r"\1 (004.", log, flags=re.MULTILINE).replace("TF-1", uuid)
    for place, word in enumerate(words):
        if ".jel" in word:
            path = tmp_path / re.sub(r"[*?]", "1", Path(word).name)
            path.write_bytes(gzip.compress(log.encode()) if path.suffix == ".gz" else log.encode())
            words[place] = str(path)
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) > 1 or "no run of a worker" in done.output


@pytest.mark.parametrize("command", [*commands(in_prose=True)], ids=str)
def test_a_command_in_a_sentence_exists(command: Command) -> None:
    if command.words[0] == "ewms":
        check_ewms(command.words[1:], whole=False)
    else:
        check_nox(command.words[1:])


def check_ewms(words: Sequence[str], *, whole: bool) -> None:
    """Our own CLI takes these words; `whole`: and has all that it requires."""
    command: click.Command = main
    context = click.Context(main)
    if "--help" in words:
        words, whole = [word for word in words if word != "--help"], False
    # In a sentence an option may stand without its value.
    open_end = [] if whole else ["…"]
    words = [*words, *open_end]
    while True:
        given, rest, _ = command.make_parser(context).parse_args(list(words))
        if not isinstance(command, click.Group) or rest in ([], open_end):
            break
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no {rest[0]}"
        command, words, context = found, rest[1:], click.Context(found, parent=context)
    for parameter in command.params:
        value = given.get(parameter.name)
        if whole and isinstance(parameter.type, click.Choice) and value is not None:
            parameter.type.convert(value, parameter, context)
        assert not (whole and parameter.required and not value), f"{parameter.name} is missing"


def check_help(command: list[str], words: Sequence[str]) -> None:
    """The program starts, and knows these options."""
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in options(words):
        assert re.search(rf"{option}\b", done.stdout), f"{command[1]} does not know {option}"


def check_options(session: str, words: Sequence[str]) -> None:
    """The session's program has these options in its source: to start it, more would have to be installed."""
    sources = [ROOT / "noxfile.py", *sorted((ROOT / "tests" / session).glob("*.py"))]
    said = "".join(path.read_text() for path in sources)
    for option in options(words):
        assert f'"{option}"' in said, f"nox -s {session} does not know {option}"


def options(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]


def check_nox(words: Sequence[str]) -> None:
    """The session exists, and what it runs knows the options behind `--`."""
    if "-s" not in words:
        assert list(words) == ["-l"]
        return
    session, *more = words[words.index("-s") + 1 :]
    assert session in functions(ROOT / "noxfile.py"), f"nox has no session {session}"
    behind = more[more.index("--") + 1 :] if "--" in more else []
    if session == "demo":
        check_ewms(["demo", *behind], whole=True)
    else:
        check_options(session, behind)


def check_table(command: Command) -> None:
    named = [test for pattern, test in RUN_BY.items() if re.fullmatch(pattern, command.text, re.DOTALL)]
    assert named, "nobody runs this: give it a line in RUN_BY"
    for test in named:
        file, _, function = test.partition("::")
        assert (ROOT / file).is_file(), f"{test} does not exist"
        assert not function or function in functions(ROOT / file), f"{test} does not exist"


def functions(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
