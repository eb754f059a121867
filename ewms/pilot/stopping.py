"""The order in which a pilot stops, and the deadlines of it.

1. Intake is cancelled: no further event is taken, and what was received but not begun is handed back.
2. Running tasks go on. When somebody wants the machine back they have the grace; then they are killed, each with its
   whole tree, and their events are handed back. A second signal ends the grace at once.
3. Verdicts, publishing included, get a few seconds more.
4. The broker's sources close, and with them goes back what the broker had handed over in advance; last chirps, for at
   most 10 s; the broker's heartbeats and connection end last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import trio

VERDICTS_S: Final = 6.0
"""After the grace: to kill the containers (SIGTERM, 1 s, SIGKILL), to hand back, or to finish publishing."""


class Reason(StrEnum):
    """Why a pilot takes no more events."""

    NO_EVENT = "no event came for the timeout"
    TASK_ERROR = "a task failed"
    SIGNAL = "a signal asked for it"
    LEASE = "this worker's time is nearly over"


class Stopping:
    """Which of the stages a pilot is in; its scopes are entered by the service."""

    def __init__(self, *, grace: float) -> None:
        self.grace = grace
        self.reason: Reason | None = None
        self.begun = False
        """Whether events are taken (or were): before that nothing is worth a grace."""
        self.everything = trio.CancelScope()
        self.intake = trio.CancelScope()
        self.in_flight = trio.CancelScope()
        self.quarantine = trio.CancelScope()
        self._tasks: set[trio.CancelScope] = set()
        self._deadline = float("inf")

    @property
    def evicted(self) -> bool:
        """Whether somebody wants the machine back."""
        return self._deadline < float("inf")

    def stop_listening(self, reason: Reason) -> None:
        """Take no more events; what runs may run to its end."""
        if self.reason is None:
            self.reason = reason
        self.intake.cancel()

    def evict(self) -> None:
        """A signal: the grace begins; a second one ends it."""
        grace = 0.0 if self.evicted else self.grace
        self._deadline = min(self._deadline, trio.current_time() + grace)
        self.reason = Reason.SIGNAL
        self.intake.cancel()
        self.quarantine.cancel()
        if not self.begun:
            self.everything.cancel()
        self.in_flight.deadline = self._deadline + VERDICTS_S
        for scope in self._tasks:
            scope.deadline = self._deadline

    @contextmanager
    def task(self) -> Iterator[trio.CancelScope]:
        """Around a running container: cancelled when the grace is over."""
        with trio.CancelScope(deadline=self._deadline) as scope:
            self._tasks.add(scope)
            try:
                yield scope
            finally:
                self._tasks.discard(scope)
