"""One RabbitMQ connection that is made anew whenever it is gone, with capped, jittered backoff."""

import os
import socket
from typing import Final, NoReturn

import structlog
import trio

from ewms.pilot.brokers._asyncio import Border
from ewms.pilot.brokers.amqpaddress import AmqpAddress
from ewms.pilot.brokers.amqpwire import ChannelRefused, Wire, WireChannel, WireLost, open_wire
from ewms.pilot.brokers.base import BrokerError, BrokerLost, BrokerRefused
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 10.0
"""Between attempts at anything (s)."""
HEARTBEAT: Final = 15
"""One is sent every half of it; a silent connection is given up after three of it (s)."""
ACCESS_REFUSED, PRECONDITION_FAILED = 403, 406


class Link:
    """Keeps a connection; whoever needs it waits for it."""

    def __init__(self, border: Border, address: AmqpAddress, give_up_after: float) -> None:
        self._border = border
        self._address = address
        self.give_up_after = give_up_after
        """How long (s) anything may fail before it is given up."""
        self._wire: Wire | None = None
        self._failure: BrokerError | None = None
        self._changed = trio.Event()

    async def wire(self) -> Wire:
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
            await self._wire.closed.wait()
            log.warning("broker connection lost", broker=str(self._address))
            if trio.current_time() - connected_at < LONGEST_WAIT:
                await trio.sleep(1)

    async def _reconnect(self) -> Wire:
        name = f"ewms-pilot {socket.gethostname()} {os.getpid()}"
        deadline = trio.current_time() + self.give_up_after
        for wait in backoff(FIRST_WAIT, LONGEST_WAIT):
            try:
                return await open_wire(self._border, self._address, heartbeat=HEARTBEAT, name=name)
            except WireLost as error:
                if trio.current_time() + wait > deadline:
                    raise BrokerLost(
                        f"the broker at {self._address} was out of reach for {self.give_up_after:g} s: {error}"
                    ) from error
                log.warning(
                    "broker out of reach, trying again",
                    broker=str(self._address),
                    error=str(error),
                    wait_s=round(wait, 1),
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


async def open_queue_channel(link: Link, queue: str, *, publisher_confirms: bool) -> WireChannel:
    """A channel on which `queue` is known to exist: declared, or, where that is refused, found.

    Raises:
        BrokerRefused: it does not exist, or we may not use it.
        WireLost: try again.
        BrokerLost: there is no connection any more.
    """
    for passive in (False, True):
        channel = await (await link.wire()).open_channel(publisher_confirms=publisher_confirms)
        try:
            await channel.declare(queue, passive=passive)
        except ChannelRefused as error:
            if passive or error.code not in {ACCESS_REFUSED, PRECONDITION_FAILED}:
                raise BrokerRefused(f"queue {queue!r} cannot be used: {error}") from error
            continue
        except BaseException:
            await channel.close()
            raise
        return channel
    raise AssertionError("the second refusal is raised")
