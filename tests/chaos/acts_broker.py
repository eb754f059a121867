"""Faults of the broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from tests.chaos.kinds import Act
from tests.chaos.schedule import Timed
from tests.chaos.system import NotDone, System

_NOTED_S: Final = 10.0
"""RabbitMQ writes the list of its quorum queues some seconds late: after a kill -9 before that a new queue comes back
empty ("name_not_registered" in its log), whatever it had confirmed. Nobody else can mend that."""


def restart(how: str) -> Act:
    """Stopped in order or killed, and started again."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        broker = system.place.broker
        assert broker is not None
        async with system.feeding:
            if how == "kill":
                await trio.sleep_until(system.newest_queue + _NOTED_S)
            with system.interrupting():
                await (broker.stop() if how == "stop" else broker.kill())
                yield
                await broker.start()

    return act


def close_connections(limit: int | None) -> Act:
    """An operator closes all connections, or so many."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        broker = system.place.broker
        assert broker is not None
        words = [] if limit is None else ["--limit", str(limit)]
        _need_pilots(system)
        async with system.feeding:
            with system.interrupting(at_most=limit):
                await broker.ctl("close_all_connections", *words, "closed by an operator")
        yield

    return act


def close_channels(*, one: bool) -> Act:
    """The broker closes a channel, or all, and leaves their connections open: as after an acknowledgement too late."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        broker = system.place.broker
        assert broker is not None
        _need_pilots(system)
        async with system.feeding:
            with system.interrupting(at_most=1 if one else None):
                await broker.ctl("eval", _close_channels(fault.draw if one else None))
        yield

    return act


def _need_pilots(system: System) -> None:
    if not system.pilots(system.jobs):
        raise NotDone("nobody was connected to the broker")


def _close_channels(draw: int | None) -> str:
    """Erlang that makes channels get an acknowledgement of what was never delivered, which is the end of a channel."""
    chosen = "All" if draw is None else f"lists:sublist(All, 1 + {draw} rem max(1, length(All)), 1)"
    ack = "{method, {'basic.ack', 1 bsl 60, false}, none, noflow}"
    return f"All = rabbit_channel:list_local(), [gen_server2:cast(Each, {ack}) || Each <- {chosen}], ok."


@asynccontextmanager
async def full_queue(system: System, fault: Timed) -> AsyncIterator[None]:
    """The outgoing queue of a base job takes no message."""
    broker = system.place.broker
    assert broker is not None
    job = system.base[fault.draw % len(system.base)]
    policy = '{"max-length": 1, "overflow": "reject-publish"}'
    pattern = f"^{job.workflow.queue_out}$"
    with system.interrupting([job]):
        await broker.ctl("set_policy", "full", pattern, policy, "--apply-to", "quorum_queues")
        yield
        await broker.ctl("clear_policy", "full")
