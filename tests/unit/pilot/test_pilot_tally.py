"""Counting in constant memory, and the pilot's last line."""

import pytest

from ewms.pilot.tally import MAX_TEXTS, Tally, last_line


def test_the_last_line() -> None:
    tally = Tally()
    assert tally.last_words() == ""
    for text in ("a", "b\n", "b"):
        tally.add_failure(text)
    assert tally.last_words() == "3 TASK(S) FAILED: b (2 times); a"


def test_memory_does_not_grow_with_different_errors() -> None:
    tally = Tally()
    for number in range(1000):
        tally.add_failure(f"error {number}")
    assert tally.failed == 1000
    assert tally.last_words().endswith(f"; and {1000 - MAX_TEXTS} others")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one", "one"),
        ("task failed: Traceback (most recent call last):\n  x\nKeyError: 1\n", "task failed: KeyError: 1"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)
def test_one_line_of_any_text(text: str, line: str) -> None:
    assert last_line(text) == line


def test_the_typical_time_covers_most_tasks() -> None:
    tally = Tally()
    assert tally.typical_s == 0
    for wall in (*[10] * 9, 1000):
        tally.add_success(wall)
    assert 10 <= tally.typical_s < 11
