"""What a source on any link does: one task keeps it consuming, others wait for what comes, and leaving hands back."""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import trio

from ewms.pilot.brokers.base import BrokerError, Delivery
from ewms.pilot.brokers.link import raise_again

_HAND_BACK_TIMEOUT: Final = 3.0
"""For closing a source (s); what could not be handed back by then is redelivered by the broker's own rules."""


class KeptSource(ABC):
    """A source with one task that keeps it; the adapter says how to consume and how to close."""

    def __init__(self) -> None:
        self._pushed, self._waiting = trio.open_memory_channel[Delivery](math.inf)
        self._settled = trio.Event()
        """Set when messages are asked for, or never will be."""
        self._failure: BrokerError | None = None
        self._stopped = False
        self._listening_since: float | None = None

    @property
    def listening_since(self) -> float | None:
        """Since when messages are asked for without a break; None while they are not."""
        return self._listening_since

    def _listens(self, *, yes: bool) -> None:
        self._listening_since = trio.current_time() if yes else None
        if yes:
            self._settled.set()

    @abstractmethod
    async def _consume_for_ever(self) -> None:
        """Consume until cancelled or stopped; say in `_listens` whether it works, raise when it is of no use."""

    @abstractmethod
    async def close(self) -> None:
        """Stop, and hand back what has no verdict."""

    async def opened(self) -> None:
        """Wait until messages are asked for.

        Raises:
            BrokerRefused, BrokerLost: they never will be.
        """
        await self._settled.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise_again(self._failure)

    async def keep(self, scope: trio.CancelScope) -> None:
        """Consume until cancelled, or until it is of no use."""
        with scope:
            try:
                await self._consume_for_ever()
            except BrokerError as error:
                self._failure = error
                self._pushed.close()
            finally:
                self._settled.set()

    def _drop_pushed(self) -> None:
        """Forget what came by a connection that is gone: while the tasks here take hours nobody receives it."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._waiting.receive_nowait()

    async def _next_pushed(self) -> Delivery:
        """The next message that came, whether it is still ours or not."""
        try:
            return await self._waiting.receive()
        except trio.EndOfChannel:
            self._raise_failure()
            raise


S = TypeVar("S", bound=KeptSource)


@asynccontextmanager
async def kept(source: S, nursery: trio.Nursery) -> AsyncIterator[S]:
    """Keep `source` consuming, by a task in `nursery`, while the context lasts; leaving hands back."""
    scope = trio.CancelScope()
    nursery.start_soon(source.keep, scope)
    try:
        await source.opened()
        yield source
    finally:
        scope.cancel()
        with trio.move_on_after(_HAND_BACK_TIMEOUT, shield=True):
            await source.close()
