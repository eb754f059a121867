"""From a task's stderr to the one text that its user is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.excerpt import exception_name, excerpt, last_traceback

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\nValueError: bad\n'


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ("", "<no stderr logs>"),
        (" \n\n", "<no stderr logs>"),
        ("one\ntwo\n\n", "two"),
        (f"noise\n{TRACEBACK}", TRACEBACK.strip()),
        (f"{TRACEBACK}\nand then\n", TRACEBACK.strip()),
        (
            f"{TRACEBACK}\nDuring handling\n\n{TRACEBACK.replace('bad', 'worse')}",
            TRACEBACK.replace("bad", "worse").strip(),
        ),
        ("mine\nDEBUG   [U=1000,P=12]   main()   cleaning up\n", "mine"),
        (
            "INFO    [U=1000,P=12]   a()   starting\nFATAL   [U=1000,P=12]   StageTwo()   exec failed: no such file\n",
            "[Apptainer-Error] exec failed: no such file",
        ),
        ("\x1b[31mFATAL  \x1b[0m [U=0,P=1]   x()   coloured\n", "[Apptainer-Error] coloured"),
        ("bwrap: Can't find source path /x: gone\n", "[Bwrap-Error] Can't find source path /x: gone"),
        ("mine\nbwrap: and then\n", "mine"),
        ("FATAL:   while opening image: no such file\n", "FATAL:   while opening image: no such file"),
        (
            "  | Traceback (most recent call last):\n  |   File x\n  | KeyError: 1\n  +---\n",
            "Traceback (most recent call last):\n  File x\nKeyError: 1",
        ),
        ("Traceback (most recent call last):\n  cut off", "Traceback (most recent call last):\n  cut off"),
        ("a\r\nb\r\n", "b"),
        (f"  9%|9    |\r 50%|55555|\r{TRACEBACK}", TRACEBACK.strip()),
        (f"page\x0c{TRACEBACK}", TRACEBACK.strip()),
    ],
)
def test_excerpt(stderr: str, text: str) -> None:
    assert excerpt(stderr) == text


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ("ValueError: bad", "ValueError"),
        ("my.module.Own: x", "my.module.Own"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("not a name: x", ""),
    ],
)
def test_exception_name(last: str, name: str) -> None:
    assert exception_name(f"Traceback (most recent call last):\n  x\n{last}\n") == name


def test_no_traceback_has_no_name() -> None:
    assert (exception_name("ValueError: said, not raised"), last_traceback("x")) == ("", "")


@given(st.text())
def test_any_text_gives_an_excerpt_that_is_not_blank(stderr: str) -> None:
    assert excerpt(stderr).strip()


@given(st.text(), st.text())
def test_a_traceback_is_found_in_any_surroundings(before: str, after: str) -> None:
    found = last_traceback(f"{before}\n{TRACEBACK}\n{after}")
    assert found.startswith("Traceback")
