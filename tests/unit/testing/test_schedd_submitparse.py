"""Submit descriptions → ads: macros, sizes, arguments, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("classad2")

from ewms.testing.schedd import words
from ewms.testing.schedd.macros import MacroError, expand
from ewms.testing.schedd.submitparse import SubmitRefused, read, size

BASE = {"universe": "container", "container_image": "/images/pilot:1"}


def values(commands: Mapping[str, Any], proc: int = 0) -> Mapping[str, Any]:
    return read({**BASE, **commands}, 10, 7, {"HOME": "/home/me"}).values(7, proc)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("no macro", "no macro"),
        ("$(a)-$(A)", "1-1"),
        ("$(b)", "[1]"),
        ("$(missing)", ""),
        ("$(missing:default)", "default"),
        ("$(missing:$(a))", "1"),
        ("$(DOLLAR)(a)", "$(a)"),
        ("$$(Memory)", "$$(Memory)"),
        ("$ENV(HOME)/x", "/home/me/x"),
        ("$ENV(NOPE:y)", "y"),
        ("$INT(10+(2*$(a)))", "12"),
        ("$INT(a)", "1"),
        ("cost $5", "cost $5"),
    ],
)
def test_macros(text: str, expanded: str) -> None:
    assert expand(text, {"a": "1", "b": "[$(a)]"}, {"HOME": "/home/me"}) == expanded


@pytest.mark.parametrize("text", ["$(loop)", "$(a", "$INT(x y)"])
def test_macros_that_cannot_be_expanded(text: str) -> None:
    with pytest.raises(MacroError):
        expand(text, {"loop": "$(loop)"}, {})


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("512M", 512), ("1GB", 1024), ("1 GB", 1024), ("1.5G", 1536), ("2T", 2 << 20), ("1000KB", 1), ("64", 64)],
)
def test_sizes_are_binary_and_bare_numbers_are_in_the_commands_unit(text: str, mebibytes: int) -> None:
    assert size(text, 1 << 20) == mebibytes


@pytest.mark.parametrize("text", ["1GiB", "junk", "", "-1", "1 2"])
def test_what_is_no_size(text: str) -> None:
    assert size(text, 1) is None


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("", []),
        ("a  b", ["a", "b"]),
        ('"a b"', ["a", "b"]),
        ("\"a 'b c' d\"", ["a", "b c", "d"]),
        ("\"it''s '' 'it''s'\"", ["its", "", "it's"]),
        ('"say ""hi"""', ["say", '"hi"']),
    ],
)
def test_arguments(text: str, split: list[str]) -> None:
    assert words.arguments(text) == split


def test_environment() -> None:
    new = "\"A=1 B='sp ace' C=quo''te D=dq\"\"x E=\""
    assert words.variables(new) == {"A": "1", "B": "sp ace", "C": "quote", "D": 'dq"x', "E": ""}
    assert words.variables("A=1;B=x y") == {"A": "1", "B": "x y"}


@pytest.mark.parametrize("text", ['"a', '"\'a"', '"a"b"', "NOPE"])
def test_environment_that_is_wrong(text: str) -> None:
    with pytest.raises(words.WordsError):
        words.variables(text)


def test_what_today_s_tms_submits_becomes_attributes() -> None:
    found = values(
        {
            "+should_transfer_container": "no",
            "+EWMSTaskforceUUID": '"TF-1"',
            "+OriginalTime": 600,
            "+WantIOProxy": "true",
            "priority": "99 - ( ($(ProcId) * 49) / 3 )",
            "request_memory": "1 GB",
            "request_disk": "512 MB",
            "request_cpus": "2",
            "output": "/jobs/cluster-$(ClusterId)/$(ProcId).out",
            "transfer_output_files": "",
            "unknown_command": "is a macro",
        },
        proc=2,
    )
    assert (found["JobPrio"], found["RequestMemory"], found["RequestDisk"]) == (67, 1024, 512 * 1024)
    assert found["Out"] == "/jobs/cluster-7/2.out"
    assert found["EWMSTaskforceUUID"].eval() == "TF-1"
    assert "TransferOutput" not in found


def test_limits_make_a_factory() -> None:
    assert not read(BASE, 1, 1, {}).is_factory
    assert read({**BASE, "max_idle": 5}, 1, 1, {}).factory_limits == (5, None)
    assert read({**BASE, "Max_Materialize": "2"}, 1, 1, {}).factory_limits == (None, 2)


def test_max_retries_is_a_policy() -> None:
    policy = values({"max_retries": 2})["OnExitRemove"]
    assert repr(policy) == "NumJobCompletions > 2 || ExitCode is 0"


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"requirements": "a &&"}, "Parse error in expression: \n\tRequirements = a &&"),
        ({"+X": "a &&"}, "Parse error in expression: \n\tX = a &&"),
        ({"priority": "100 - ProcId"}, "must eval to an integer"),
        ({"request_memory": "1GiB"}, "Parse error in expression: \n\tRequestMemory = 1GiB"),
        ({"universe": "moon"}, "I don't know about the 'moon' universe."),
        ({"universe": "vanilla"}, "No 'executable' parameter was provided"),
        ({"initialdir": "/no/such/directory"}, "No such directory: /no/such/directory"),
        ({"environment": '"A'}, "no closing double quote"),
        ({"log": "/x\n+Evil = 1"}, "parse_up_to_q_line() failed"),
        ({"arguments": "a\\"}, "parse_up_to_q_line() failed"),
    ],
)
def test_what_is_refused(commands: dict[str, str], words: str) -> None:
    with pytest.raises(SubmitRefused) as refusal:
        values(commands)
    assert words in str(refusal.value)


def test_a_factory_says_that_it_is_one() -> None:
    with pytest.raises(SubmitRefused, match=r"^Failed to create job ad \(late materialization\), errmsg=Submit:-1:"):
        values({"requirements": "a &&", "max_idle": 1})


def test_an_initialdir_that_is_there(tmp_path: Path) -> None:
    assert values({"initialdir": str(tmp_path)})["Iwd"] == str(tmp_path)
