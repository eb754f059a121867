"""What can go wrong with a pilot, and the exit status of each class; what can go wrong with one task.

A task's error is counted and told; a pilot's error ends it.
"""

import re
from enum import IntEnum
from typing import Final

from ewms.groups import leaves
from ewms.pilot.brokers.base import BrokerLost, BrokerRefused
from ewms.pilot.containers.base import ContainerError, ImageUnusable, MountRefused
from ewms.settings import SettingsError


class ExitStatus(IntEnum):
    """How a pilot ended; public, so that sites can be judged by it."""

    OK = 0
    """Every task succeeded (or there was none)."""
    TASKS_FAILED = 1
    """At least one task failed; the last line says which errors."""
    CONFIGURATION = 2
    """A setting is missing or wrong, or asks for something unsafe."""
    INIT_FAILED = 3
    """The init container failed."""
    RUNTIME = 4
    """The container runtime does not work on this machine."""
    IMAGE = 5
    """The image cannot be used."""
    BROKER_REFUSED = 6
    """The broker refuses us: credentials, permissions, no such queue."""
    BROKER_LOST = 7
    """The broker was out of reach for too long."""
    DATA_DIRECTORY = 8
    """The pilot's own directory cannot be used: full, read-only, gone."""
    STOPPED = 9
    """A signal ended it before its events did; what was not finished was handed back."""
    ONLY_PARKED = 10
    """There were only events that had failed too often elsewhere, and no pilot runs those."""
    SELF_CHECK = 11
    """No container starts on this machine, or it has no room; no event was taken."""
    BUG = 70
    """None of the above: a mistake in the pilot itself."""


class PilotError(Exception):
    """Something that ends the pilot."""


class InitFailed(PilotError):
    """The init container failed."""


class DataDirectoryError(PilotError):
    """The pilot's own directory cannot be used."""


class SelfCheckFailed(PilotError):
    """The machine is not fit for tasks."""


STATUS_OF: Final[tuple[tuple[type[Exception], ExitStatus], ...]] = (
    (SettingsError, ExitStatus.CONFIGURATION),
    (MountRefused, ExitStatus.CONFIGURATION),
    (SelfCheckFailed, ExitStatus.SELF_CHECK),
    (InitFailed, ExitStatus.INIT_FAILED),
    (ImageUnusable, ExitStatus.IMAGE),
    (ContainerError, ExitStatus.RUNTIME),
    (BrokerRefused, ExitStatus.BROKER_REFUSED),
    (BrokerLost, ExitStatus.BROKER_LOST),
    (DataDirectoryError, ExitStatus.DATA_DIRECTORY),
)
"""Error class → exit status; the first that fits counts."""


def status_of(error: BaseException) -> ExitStatus:
    """The exit status for an error; an exception that nobody expected is a bug."""
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), ExitStatus.BUG)


def root_cause(error: BaseException) -> BaseException:
    """The one exception that a group of them is about: a bug before anything that was expected."""
    causes = list(leaves(error))
    return max(causes, key=lambda cause: status_of(cause) is ExitStatus.BUG)


class TaskError(Exception):
    """One event's task failed; the text is what the user is told."""

    exception_name: str = ""
    """The class of the Python exception that the task itself died of, where its stderr shows one."""


class TaskFailed(TaskError):
    """The task's container ended with an exit code other than 0."""

    def __init__(self, code: int, excerpt: str, exception_name: str = "") -> None:
        super().__init__(f"task failed (exit code {code}): {excerpt}")
        self.code = code
        self.exception_name = exception_name


class TaskTimedOut(TaskError, TimeoutError):
    """The task ran for too long and was killed."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"task failed: [Timeout-Error] timed out after {limit:g}s")


class TaskOverLimit(TaskError):
    """The task exceeded one of its limits and was killed."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"task failed: [{kind}-Error] it {text}")


class BadEvent(TaskError):
    """The event cannot be given to a task."""


class BadOutput(TaskError):
    """What the task wrote cannot be sent."""


def is_okay(error: TaskError, names: tuple[str, ...], pattern: str = "") -> bool:
    """Whether `error` is one of those that say nothing about this machine.

    A name fits the pilot's own class (or one that it derives from), or the exception in the task's traceback, with or
    without its module; a number fits the task's exit code; a pattern is searched for in the error's text.
    """
    if pattern and re.search(pattern, str(error)):
        return True
    if isinstance(error, TaskFailed) and str(error.code) in names:
        return True
    own = {kind.__name__ for kind in type(error).__mro__}
    theirs = error.exception_name
    return any(name in own or name in (theirs, theirs.rpartition(".")[2]) for name in names if name)
