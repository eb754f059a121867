"""The embedded broker: for development, tests and machines without a broker; several pilots of one host at once.

Its address is a directory, `local:///path` or a plain path; there are no tokens. Queues come into being by being used.
"""

import math
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog
import trio

from ewms.pilot.brokers.base import BrokerLost, BrokerRefused, Delivery
from ewms.pilot.brokers.localstore import Owner, Store
from ewms.secret import Secret

_T = TypeVar("_T")

log = structlog.stdlib.get_logger(__name__)

SCHEME: Final = "local://"
# How long a message may lie unseen (s), and how often dead consumers are looked for (s).
_POLL_INTERVAL: Final = 0.02
_REAP_INTERVAL: Final = 0.5
_RELEASE_TIMEOUT: Final = 10.0


def directory_of(address: str) -> Path:
    """The directory that an address names.

    Raises:
        BrokerRefused: it names none.
    """
    path = address.removeprefix(SCHEME)
    if not path or "://" in path:
        raise BrokerRefused(f"the address {address!r} of an embedded broker must be local:///DIRECTORY or a path")
    return Path(path)


@asynccontextmanager
async def connect(
    address: str,
    auth_token: Secret,  # noqa: ARG001  there is nobody to show it to
    *,
    give_up_after: float,  # noqa: ARG001  there is no connection to lose
) -> AsyncIterator["LocalBroker"]:
    """Open the embedded broker in a directory, which is made if need be.

    Raises:
        BrokerRefused: the directory cannot be used.
    """
    directory = directory_of(address)
    try:
        store = await trio.to_thread.run_sync(Store, directory)
    except (sqlite3.Error, OSError) as error:
        raise BrokerRefused(f"the embedded broker in {directory} cannot be opened: {error}") from error
    try:
        yield LocalBroker(store)
    finally:
        store.close()


class LocalBroker:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def call(self, function: Callable[[], _T]) -> _T:
        """Run one call of the store in a thread; once it began it is not cancelled, so its result is never lost.

        Raises:
            BrokerLost: the file cannot be read or written.
        """
        try:
            return await trio.to_thread.run_sync(function, limiter=self._one_at_a_time)
        except (sqlite3.Error, OSError) as error:
            raise self.lost(error) from error

    def lost(self, error: Exception) -> BrokerLost:
        """The one error that all of SQLite's and the file system's become."""
        return BrokerLost(f"the embedded broker in {self._store.directory} failed: {error}")

    @asynccontextmanager
    async def source(self, queue: str, *, prefetch: int) -> AsyncIterator["LocalSource"]:
        """Consume `queue`; leaving it frees what got no verdict."""
        store = self._store
        owner = await self.call(lambda: Owner(store.directory))
        source = LocalSource(self, store, queue, owner.name, prefetch)
        try:
            yield source
        finally:
            source.forget()
            with trio.move_on_after(_RELEASE_TIMEOUT, shield=True) as release:
                await self.call(lambda: store.release(owner.name, count=False))
            if release.cancelled_caught:
                log.warning("the queue's file is busy; messages go back when others see that this consumer is gone")
            owner.close()

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator["LocalSink"]:
        """Publish to `queue`."""
        yield LocalSink(self, self._store, queue)


class LocalSource:
    """See `ewms.pilot.brokers.base.Source`."""

    def __init__(self, broker: LocalBroker, store: Store, queue: str, owner: str, prefetch: int) -> None:
        self._broker = broker
        self._store = store
        self._queue = queue
        self._owner = owner
        self._prefetch = prefetch
        self._held: set[int] = set()
        self._claiming = 0
        self._stopped = False
        self._next_reaping = -float("inf")

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def receive(self) -> Delivery:
        """Wait for the next message; at most `prefetch` of them are without a verdict at any time."""
        while not self._stopped:
            await trio.lowlevel.checkpoint()
            await self._reap_now_and_then()
            if len(self._held) + self._claiming < self._prefetch and self._is_ready():
                delivery = await self._claim()
                if delivery is not None:
                    return delivery
            await trio.sleep(_POLL_INTERVAL)
        return await trio.sleep_forever()

    def _is_ready(self) -> bool:
        try:
            return self._store.ready(self._queue)
        except sqlite3.Error as error:
            raise self._broker.lost(error) from error

    async def _claim(self) -> Delivery | None:
        self._claiming += 1
        try:
            message = await self._broker.call(lambda: self._store.claim(self._queue, self._owner))
        finally:
            self._claiming -= 1
        if message is None:
            return None
        self._held.add(message.row)
        return Delivery(
            body=message.body,
            queue=self._queue,
            message_id=message.message_id,
            returned=message.returned,
            tag=message.row,
        )

    async def _reap_now_and_then(self) -> None:
        now = trio.current_time()
        if now < self._next_reaping:
            return
        self._next_reaping = now + _REAP_INTERVAL
        freed = await self._broker.call(lambda: self._store.release_the_dead(self._queue))
        if freed:
            log.warning("a consumer died, its messages go to others", queue=self._queue, messages=freed)

    @property
    def listening_since(self) -> float:
        """There is no connection to lose."""
        return -math.inf

    def holds(self, delivery: Delivery) -> bool:
        """Whether it has no verdict: from a living consumer nobody takes anything."""
        return delivery.tag in self._held

    async def stop(self) -> None:
        """Take nothing more; there is nothing to hand back, because only `receive` takes."""
        self._stopped = True
        await trio.lowlevel.checkpoint()

    def forget(self) -> None:
        """Hold nothing any more."""
        self._held.clear()

    async def ack(self, delivery: Delivery) -> bool:
        """Forget the message."""
        return await self._verdict(delivery, lambda: self._store.ack(delivery.tag, self._owner))

    async def reject(self, delivery: Delivery) -> bool:
        """Free the message and count the return."""
        return await self._verdict(delivery, lambda: self._store.give_back(delivery.tag, self._owner, count=True))

    async def hand_back(self, delivery: Delivery) -> bool:
        """Free the message and count nothing."""
        return await self._verdict(delivery, lambda: self._store.give_back(delivery.tag, self._owner, count=False))

    async def _verdict(self, delivery: Delivery, give: Callable[[], bool]) -> bool:
        if delivery.tag not in self._held:
            await trio.lowlevel.checkpoint()
            return False
        valid = await self._broker.call(give)
        self._held.discard(delivery.tag)
        return valid


class LocalSink:
    """See `ewms.pilot.brokers.base.Sink`."""

    def __init__(self, broker: LocalBroker, store: Store, queue: str) -> None:
        self._broker = broker
        self._store = store
        self._queue = queue

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def publish(self, body: bytes, *, message_id: str) -> None:
        """Append one message."""
        await self._broker.call(lambda: self._store.put(self._queue, [(body, message_id)]))
