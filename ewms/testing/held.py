"""Hold an async context manager open in a thread of its own.

pytest's async fixtures live as long as one test; a real pool takes seconds to start and is shared by a whole session.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class _Holder(Generic[T]):
    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._settled = threading.Event()
        self._release: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="held")

    def open(self) -> T:
        self._thread.start()
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self._value[0]

    def close(self) -> None:
        if self._token is not None and self._release is not None:
            self._token.run_sync_soon(self._release.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            trio.run(self._hold)
        except BaseException as error:  # noqa: BLE001, ASYNC103  raised again in the owner's thread
            self._error = error
        finally:
            self._settled.set()

    async def _hold(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._release = trio.Event()
        async with self._make() as value:
            self._value.append(value)
            self._settled.set()
            await self._release.wait()


@contextmanager
def held(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `make()` gives when entered; it stays open while this context lasts.

    The value must be usable from another thread (a record of addresses and command lines is).
    """
    holder = _Holder(make)
    value = holder.open()
    try:
        yield value
    finally:
        holder.close()
