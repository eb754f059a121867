"""A reader's wish: that the logs be looked at now, not at the next poll, so that it tells what is true now."""

from collections.abc import Sequence
from typing import Final

import trio

PATIENCE: Final = 1.0
"""Seconds that a wish may take: as long as a poll of the logs; after it what is known has to do."""


class Freshness:
    """Between who watches the logs and who tells of them."""

    def __init__(self) -> None:
        self._wish = trio.Event()
        self._granted = trio.Event()
        self._is_watched = False

    async def ask(self) -> None:
        """Return when all that is in the logs by now has been read, or after `PATIENCE`; at once if nobody watches."""
        if self._is_watched:
            granted = self._granted
            self._wish.set()
            with trio.move_on_after(PATIENCE):
                await granted.wait()

    # --- for the watch ---

    async def wait(self, poll: float) -> None:
        """Until somebody wishes, or a poll is due (s)."""
        with trio.move_on_after(poll):
            await self._wish.wait()

    def begin(self) -> trio.Event | None:
        """A look begins: what to set when all that it finds was read, if somebody wished for it."""
        self._is_watched = True
        if not self._wish.is_set():
            return None
        granted = self._granted
        self._wish, self._granted = trio.Event(), trio.Event()
        return granted


async def grant(granted: trio.Event, reads: Sequence[trio.Event]) -> None:
    """Set an event when all others are."""
    for read in reads:
        await read.wait()
    granted.set()
