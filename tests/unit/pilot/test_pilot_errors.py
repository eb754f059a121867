"""One exit status for each class of failure."""

import pytest

from ewms.pilot import errors
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused
from ewms.pilot.containers.base import ContainerError, ImageUnusable, MountRefused
from ewms.pilot.errors import ExitStatus, TaskFailed, TaskTimedOut, is_okay, root_cause, status_of
from ewms.settings import SettingsError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingsError(["x"]), 2),
        (MountRefused("x"), 2),
        (errors.InitFailed("x"), 3),
        (ContainerError("x"), 4),
        (ImageUnusable("x"), 5),
        (BrokerRefused("x"), 6),
        (BrokerLost("x"), 7),
        (errors.DataDirectoryError("x"), 8),
        (ZeroDivisionError(), 70),
    ],
)
def test_exit_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_every_failure_class_has_its_own() -> None:
    assert len({status.value for status in ExitStatus}) == len(ExitStatus)


def test_a_bug_is_the_cause_before_anything_expected() -> None:
    bug = ZeroDivisionError()
    group = ExceptionGroup("", [BrokerLost("x"), ExceptionGroup("", [bug])])
    assert root_cause(group) is bug
    assert isinstance(root_cause(ExceptionGroup("", [BrokerLost("x")])), BrokerLost)


@pytest.mark.parametrize(
    ("names", "okay"),
    [
        ((), False),
        (("TaskFailed",), True),
        (("TaskError",), True),
        (("mod.Own",), True),
        (("Own",), True),
        (("Other",), False),
    ],
)
def test_okay_errors(names: tuple[str, ...], okay: bool) -> None:
    assert is_okay(TaskFailed(1, "x", "mod.Own"), names) is okay


def test_a_timeout_is_a_timeout_error() -> None:
    assert is_okay(TaskTimedOut(5), ("TimeoutError",))
    assert str(TaskTimedOut(5.0)) == "task failed: [Timeout-Error] timed out after 5s"
    assert str(TaskFailed(3, "why")) == "task failed (exit code 3): why"
