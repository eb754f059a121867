"""One broker connection that is made anew whenever it is gone, with capped, jittered backoff."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, NoReturn, Protocol, TypeVar

import structlog
import trio

from ewms.pilot.brokers._asyncio import Border, open_border
from ewms.pilot.brokers.base import BrokerError, BrokerLost
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 10.0
"""Between attempts at anything (s)."""
CLOSE_TIMEOUT: Final = 3.0
"""For saying good-bye to a broker, which may not listen (s)."""


class WireLost(Exception):
    """The connection or channel is gone, or does not answer; on a new one the call may be repeated."""


class Wire(Protocol):
    """One open connection; it lives once."""

    closed: trio.Event
    """Set when the connection is gone."""

    async def lost(self) -> None:
        """Return when the connection is gone, and see to it that this is noticed."""

    async def close(self) -> None:
        """Say good-bye and hang up; cancelled, it still hangs up."""


W = TypeVar("W", bound=Wire)


class Link(Generic[W]):
    """Keeps a connection; whoever needs it waits for it."""

    def __init__(
        self, broker: str, open_wire: Callable[[], Awaitable[W]], give_up_after: float, nursery: trio.Nursery
    ) -> None:
        self._broker = broker
        self._open_wire = open_wire
        self.give_up_after = give_up_after
        """How long (s) anything may fail before it is given up."""
        self.nursery = nursery
        """For what lives as long as the link."""
        self._wire: W | None = None
        self._failure: BrokerError | None = None
        self._changed = trio.Event()

    async def wire(self) -> W:
        """The connection, as soon as there is one.

        Raises:
            BrokerRefused, BrokerLost: there will be none.
        """
        while True:
            if self._failure is not None:
                raise_again(self._failure)
            if self._wire is not None and not self._wire.closed.is_set():
                return self._wire
            await self._changed.wait()

    async def keep(self) -> None:
        """Connect again and again, until cancelled, or until there will be no connection any more."""
        while True:
            try:
                self._wire = await self._reconnect()
            except BrokerError as error:
                self._failure = error
                self._tell()
                return
            self._tell()
            connected_at = trio.current_time()
            await self._wire.lost()
            log.warning("broker connection lost", broker=self._broker)
            if trio.current_time() - connected_at < LONGEST_WAIT:
                await trio.sleep(1)

    async def _reconnect(self) -> W:
        deadline = trio.current_time() + self.give_up_after
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                return await self._open_wire()
            except WireLost as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(
                        f"the broker at {self._broker} was out of reach for {self.give_up_after:g} s: {error}"
                    ) from error
                log.warning(
                    "broker out of reach, trying again", broker=self._broker, error=str(error), wait_s=round(wait, 1)
                )
            await trio.sleep(wait)
        raise AssertionError("backoff ends")

    async def close(self) -> None:
        """Say good-bye."""
        if self._wire is not None:
            await self._wire.close()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def raise_again(failure: BrokerError) -> NoReturn:
    """Raise what several tasks must be told; each gets an exception of its own."""
    raise type(failure)(str(failure))


def client_name() -> str:
    """What brokers show of us to their operators."""
    return f"ewms-pilot {socket.gethostname()} {os.getpid()}"


@asynccontextmanager
async def open_link(
    broker: str, open_wire: Callable[[Border], Awaitable[W]], give_up_after: float
) -> AsyncIterator[Link[W]]:
    """A link that is connected, to the broker that people know as `broker`; what the body raises leaves as it is.

    Raises:
        BrokerRefused: the broker refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    raised: BaseException | None = None
    try:
        async with open_border() as border, _kept(broker, lambda: open_wire(border), give_up_after) as link:
            try:
                yield link
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        # The nurseries in between, whose own tasks raise nothing, wrap what the body raises.
        if raised is None:
            raised = _only(group)
    if raised is not None:
        raise raised


@asynccontextmanager
async def _kept(broker: str, open_wire: Callable[[], Awaitable[W]], give_up_after: float) -> AsyncIterator[Link[W]]:
    async with trio.open_nursery() as nursery:
        link = Link(broker, open_wire, give_up_after, nursery)
        nursery.start_soon(link.keep)
        try:
            await link.wire()
            yield link
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await link.close()


def _only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group
