"""Errors in groups in groups: found, and told as one."""

import pytest

from ewms.groups import leaves, told_as


def test_leaves_of_groups_in_groups_and_of_a_bare_error() -> None:
    first, second = OSError("a"), ValueError("b")
    assert list(leaves(ExceptionGroup("", [first, ExceptionGroup("", [second])]))) == [first, second]
    assert list(leaves(first)) == [first]


@pytest.mark.parametrize("error", [OSError("a"), ExceptionGroup("", [ExceptionGroup("", [OSError("a")])])])
def test_errors_of_the_kind_are_told_as_one_bare_error(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=r"^told: a$"), told_as(OSError, lambda e: RuntimeError(f"told: {e[0]}")):
        raise error


def test_with_another_error_beside_them_everything_passes() -> None:
    group = ExceptionGroup("", [OSError("a"), KeyError("b")])
    with pytest.RaisesGroup(OSError, KeyError), told_as(OSError, lambda e: RuntimeError("told")):
        raise group


def test_no_error_no_tale() -> None:
    with told_as(OSError, lambda e: RuntimeError("told")):
        pass
