"""A kept connection of a client library that lives in asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ewms.pilot.brokers._asyncio import Border, open_border
from ewms.pilot.brokers.link import Link, W, as_raised, open_link


def open_asyncio_link(
    broker: str, open_wire: Callable[[Border], Awaitable[W]], give_up_after: float
) -> AbstractAsyncContextManager[Link[W]]:
    """As `open_link`, with an asyncio loop of its own."""
    return as_raised(_bordered(broker, open_wire, give_up_after))


@asynccontextmanager
async def _bordered(
    broker: str, open_wire: Callable[[Border], Awaitable[W]], give_up_after: float
) -> AsyncIterator[Link[W]]:
    async with open_border() as border, open_link(broker, lambda: open_wire(border), give_up_after) as link:
        yield link
