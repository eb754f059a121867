"""Real things that cannot be had: skips where somebody develops, failures in CI."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from ewms.testing.pool import PoolUnavailable


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", PoolUnavailable)])
def test_what_cannot_be_had(
    required: str,
    outcome: type[BaseException],
    needed: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EWMS_TEST_REQUIRED", required)
    with pytest.raises(outcome, match="it needs root"), needed():
        raise PoolUnavailable("it needs root")
