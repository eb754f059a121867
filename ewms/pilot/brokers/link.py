"""One broker connection that is made anew whenever it is gone, with capped, jittered backoff."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Generic, NoReturn, Protocol, TypeVar

import structlog
import trio

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


T = TypeVar("T")
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
                self._wire = await reach(self._broker, self._open_wire, self.give_up_after)
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


async def reach(broker: str, attempt: Callable[[], Awaitable[T]], give_up_after: float) -> T:
    """What `attempt` returns, which is repeated while it finds the broker out of reach.

    Raises:
        BrokerLost: out of reach for `give_up_after` s.
    """
    deadline = trio.current_time() + give_up_after
    for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
        try:
            return await attempt()
        except WireLost as error:
            if trio.current_time() + wait > deadline:
                raise BrokerLost(f"the broker at {broker} was out of reach for {give_up_after:g} s: {error}") from error
            log.warning("broker out of reach, trying again", broker=broker, error=str(error), wait_s=round(wait, 1))
        await trio.sleep(wait)
    raise AssertionError("backoff ends")


def open_link(
    broker: str, open_wire: Callable[[], Awaitable[W]], give_up_after: float
) -> AbstractAsyncContextManager[Link[W]]:
    """A link that is connected, to the broker that people know as `broker`; what the body raises leaves as it is.

    Raises:
        BrokerRefused: the broker refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    return as_raised(_kept(broker, open_wire, give_up_after))


@asynccontextmanager
async def as_raised(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a context that has nurseries whose own tasks raise nothing: what the body raises leaves as it is."""
    raised: BaseException | None = None
    try:
        async with context as value:
            try:
                yield value
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
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
