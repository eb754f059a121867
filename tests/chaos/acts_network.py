"""Faults of the network between pilots and broker, and between TMS and WMS: proxies do them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ewms.testing.proxy import Proxy
from tests.chaos.kinds import Act
from tests.chaos.schedule import Timed
from tests.chaos.system import NotDone, System


def to_broker(what: str, value: float = 0.0) -> Act:
    """On the pilots' way to their broker."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        assert system.broker_proxy is not None
        with system.interrupting():
            async with _done(system.broker_proxy, what, value):
                yield

    return act


def to_wms(what: str, value: float = 0.0) -> Act:
    """On the TMS's way to its WMS."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        async with _done(system.wms_proxy, what, value):
            yield

    return act


@asynccontextmanager
async def _done(proxy: Proxy, what: str, value: float = 0.0) -> AsyncIterator[None]:
    """`stall`, `sever`, `reset`, `refuse`, or `delay` and `loss` with a value; afterwards all is as it was."""
    match what:
        case "stall":
            proxy.stall()
        case "sever":
            proxy.sever()
        case "reset":
            if not proxy.open_connections:
                raise NotDone("no connection to reset")
            proxy.reset()
        case "refuse":
            proxy.refusing = True
            proxy.reset()
        case "delay":
            proxy.delay = value
        case "loss":
            proxy.loss = value
        case _:
            raise ValueError(what)
    try:
        yield
    finally:
        proxy.resume()
        proxy.refusing, proxy.delay, proxy.loss = False, 0.0, 0.0
