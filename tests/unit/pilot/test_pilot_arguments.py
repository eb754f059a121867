"""Arguments are split like a shell splits words, and nothing of them is ever evaluated."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.arguments import ArgumentsError, fill, split

PATHS = {"infile": "/i", "outfile": "/o", "data_hub": "/d"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("cp {{INFILE}} {{OUTFILE}}", ["cp", "{{INFILE}}", "{{OUTFILE}}"]),
        ("sh -c 'a b' \"c d\" e\\ f", ["sh", "-c", "a b", "c d", "e f"]),
        ("$HOME `id` ; # x * ~", ["$HOME", "`id`", ";", "#", "x", "*", "~"]),
        ("a '' b", ["a", "", "b"]),
        ("one\ntwo", ["one", "two"]),
    ],
)
def test_split(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize("text", ["'", '"a', "a\\", "a\0b"])
def test_what_does_not_split(text: str) -> None:
    with pytest.raises(ArgumentsError):
        split(text)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split(shlex.join(words)) == words


def test_every_placeholder() -> None:
    words = [
        "--in={{INFILE}}",
        "{{IN_FILE}}",
        "{{OUTFILE}}{{OUT_FILE}}",
        "{{DATA_HUB}}/{{DATAHUB}}",
        "{{OTHER}}",
        "{{ INFILE }}",
    ]
    assert fill(words, PATHS) == ["--in=/i", "/i", "/o/o", "/d//d", "{{OTHER}}", "{{ INFILE }}"]


def test_what_was_put_in_is_not_looked_at_again() -> None:
    assert fill(["{{INFILE}}"], {**PATHS, "infile": "{{OUTFILE}}"}) == ["{{OUTFILE}}"]


def test_a_placeholder_without_a_path_stays() -> None:
    assert fill(["{{INFILE}}", "{{DATA_HUB}}"], {"data_hub": "/d"}) == ["{{INFILE}}", "/d"]
