"""A TCP proxy that breaks connections on purpose: for tests of what survives a bad network."""

import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

_RETRANSMISSION_S: Final = (0.2, 3.0)
"""How long TCP takes to send again what was lost: once, or several times with growing waits."""


@attrs.define(eq=False)
class _Connection:
    """One that is forwarded."""

    client: trio.SocketStream
    server: trio.SocketStream
    scope: trio.CancelScope
    is_severed: bool = False
    """Nothing goes through it any more, and neither side is told."""


class Proxy:
    """Forwards one local port to one server."""

    def __init__(self, host: str, port: int, target: tuple[str, int]) -> None:
        self.host = host
        self.port = port
        self.connections = 0
        """How many were accepted so far."""
        self.refusing = False
        """While true, new connections are closed at once."""
        self.delay = 0.0
        """Each piece is held back for so long (s), in either direction; what follows waits behind it."""
        self.loss = 0.0
        """So many of the pieces (0 to 1) are lost and sent again by TCP: they, and what follows, come later."""
        self._target = target
        self._open: set[_Connection] = set()
        self._is_cut = False
        self._flowing = trio.Event()
        self._flowing.set()

    @property
    def open_connections(self) -> int:
        """How many it forwards now."""
        return len(self._open)

    def stall(self) -> None:
        """Keep connections open, but forward nothing, in either direction."""
        self._flowing = trio.Event()

    def resume(self) -> None:
        """Forward again, what was held back first; connections that were severed stay so."""
        self._flowing.set()
        self._is_cut = False

    def sever(self) -> None:
        """Make all connections half-open: each side's bytes, and its end, vanish; so do those of new ones.

        As when a firewall forgets a connection, or the other machine is gone without a word.
        """
        self._is_cut = True
        for each in self._open:
            each.is_severed = True

    def drop(self) -> None:
        """Close all connections in good order (FIN)."""
        for each in list(self._open):
            each.scope.cancel()

    def reset(self) -> None:
        """Break all connections (RST)."""
        for each in self._open:
            for stream in (each.client, each.server):
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop()

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection until a side closes it or a fault breaks it."""
        self.connections += 1
        if self.refusing:
            await client.aclose()
            return
        async with client:
            try:
                server = await trio.open_tcp_stream(*self._target)
            except OSError:
                return
            with trio.CancelScope() as scope:
                connection = _Connection(client, server, scope, self._is_cut)
                self._open.add(connection)
                try:
                    async with server, trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, client, server, connection)
                        nursery.start_soon(self._pump, server, client, connection)
                finally:
                    self._open.discard(connection)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, connection: _Connection) -> None:
        try:
            async for chunk in source:
                await self._hold_back()
                if not connection.is_severed:
                    await sink.send_all(chunk)
            if not connection.is_severed:
                await sink.send_eof()
        except trio.BrokenResourceError:
            if not connection.is_severed:
                connection.scope.cancel()

    async def _hold_back(self) -> None:
        if self.delay:
            await trio.sleep(self.delay)
        if self.loss and random.random() < self.loss:  # noqa: S311  it guards nothing
            await trio.sleep(random.uniform(*_RETRANSMISSION_S))  # noqa: S311
        await self._flowing.wait()


@asynccontextmanager
async def open_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy to the server at `host`:`port`, on a free port of this host."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    own_host, own_port = listener.socket.getsockname()
    proxy = Proxy(own_host, own_port, (host, port))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])  # noqa: ASYNC113  it listens already
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
