"""What an operator does on a NATS server, with another client than the pilot's adapter."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ewms.secret import Secret


async def as_admin(address: str, token: Secret, use: Callable[[Any], Awaitable[object]]) -> Any:
    """Call `use` with a JetStream context, in an asyncio loop of its own; what it returns."""
    import nats  # not there on Python 3.14

    async def work() -> object:
        client = await nats.connect(
            address, token=token.reveal() or None, allow_reconnect=False, max_reconnect_attempts=1
        )
        try:
            return await use(client.jetstream())
        finally:
            await client.close()  # noqa: ASYNC102  asyncio, where nobody cancels it

    return await trio.to_thread.run_sync(lambda: asyncio.run(work()))


async def make_consumer(address: str, token: Secret, queue: str, *, ack_wait: float) -> None:
    """Make a queue whose deliveries go back soon when nobody shows a sign of life."""

    async def make(jetstream: Any) -> None:
        from nats.js.api import ConsumerConfig

        await jetstream.add_stream(name=f"{queue}-stream", subjects=[f"{queue}-subject"])
        config = ConsumerConfig(
            durable_name="psub", filter_subject=f"{queue}-subject", ack_wait=ack_wait, max_ack_pending=-1
        )
        await jetstream.add_consumer(f"{queue}-stream", config)

    await as_admin(address, token, make)


async def delete_stream(address: str, token: Secret, queue: str) -> None:
    """Delete a queue."""
    await as_admin(address, token, lambda jetstream: jetstream.delete_stream(f"{queue}-stream"))
