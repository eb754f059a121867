"""The border to asyncio: the only importer of trio_asyncio, and all that the broker adapters use of it.

Four things are done here that trio_asyncio leaves to its users. A cancelled call is left at once, while its asyncio
task winds down by itself: client libraries may swallow or delay a cancellation. An error in one of a library's own
background tasks is logged instead of tearing the loop, and the pilot with it, down. A call runs in its own loop, not
in the one that was opened last. And callbacks that are ready run in one turn of Trio's, as they do in asyncio.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import structlog
import trio
import trio_asyncio

_T = TypeVar("_T")

log = structlog.stdlib.get_logger(__name__)

_MOST_IN_ONE_TURN: Final = 100
"""Callbacks that run before Trio's own tasks get their turn."""


class Border:
    """One asyncio loop inside Trio."""

    def __init__(self, loop: trio_asyncio.TrioEventLoop) -> None:
        self._loop = loop

    async def call(self, function: Callable[[], Awaitable[_T]], *, to_its_end: bool = False) -> _T:
        """Run an asyncio function; its errors come out unchanged, an `asyncio.CancelledError` of its own too.

        A cancelled call is left, and its function is cancelled; or it goes on by itself, `to_its_end`.
        """
        # With several loops open, the innermost would be "the running one" in all tasks.
        context = contextvars.copy_context()
        context.run(trio_asyncio.current_loop.set, self._loop)
        task: asyncio.Task[_T] = self._loop.create_task(_run(function), context=context)
        done = trio.Event()
        task.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        except trio.Cancelled:
            task.add_done_callback(_retrieve)
            if not to_its_end:
                task.cancel()
            raise
        return task.result()


@asynccontextmanager
async def open_border() -> AsyncIterator[Border]:
    """An asyncio loop that lives as long as this context; what the body raises comes out in exception groups."""
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_background_error)
        _quicken(loop)
        yield Border(loop)


def _quicken(loop: trio_asyncio.TrioEventLoop) -> None:
    """Run all callbacks that are ready in one turn of Trio's.

    trio_asyncio gives each of them a turn of its own, with a look at every socket; an event is some thirty callbacks.
    It also inspects each callback's function, which asyncio does only to find mistakes, in its debug mode.
    """
    run_one = loop._main_loop_one

    async def run_many(no_wait: bool = False) -> None:
        await run_one(no_wait)
        with suppress(trio.WouldBlock):
            for _ in range(0 if no_wait else _MOST_IN_ONE_TURN):
                await run_one(no_wait=True)

    loop._main_loop_one = run_many
    loop._check_callback = lambda _callback, _method: None


async def _run(function: Callable[[], Awaitable[_T]]) -> _T:
    return await function()


def _retrieve(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _log_background_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug(
        "error in a background task of a broker client",
        message=context.get("message"),
        error=repr(context.get("exception")),
    )
