"""What a workflow's user does with the embedded broker: put events, collect results, look at the queues.

Each call opens the broker's directory anew, so it can be mixed freely with running pilots. With a real broker users
do the same with `oms-mqclient`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import trio

from ewms.pilot import events
from ewms.pilot.brokers.localstore import Depth, Store

_T = TypeVar("_T")


async def put(directory: Path, queue: str, data: Iterable[Any]) -> None:
    """Append one event for each value of `data` (bytes or any JSON value), all or none."""
    bodies = [(events.encode(value), None) for value in data]
    await _with_store(directory, lambda store: store.put(queue, bodies))


async def drain(directory: Path, queue: str) -> list[events.Event]:
    """Remove and return all events of `queue` that no consumer holds, oldest first."""
    messages = await _with_store(directory, lambda store: store.take_all(queue))
    return [events.decode(message.body, message.message_id) for message in messages]


async def counts(directory: Path) -> dict[str, Depth]:
    """The queues that hold events, and how many."""
    return await _with_store(directory, Store.depths)


async def _with_store(directory: Path, use: Callable[[Store], _T]) -> _T:
    def work() -> _T:
        store = Store(directory)
        try:
            return use(store)
        finally:
            store.close()

    return await trio.to_thread.run_sync(work)
