"""A TCP proxy that breaks connections on purpose: for tests of what survives a bad network."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Proxy:
    """Forwards one local port to one server."""

    def __init__(self, host: str, port: int, target: tuple[str, int]) -> None:
        self.host = host
        self.port = port
        self.connections = 0
        """How many were accepted so far."""
        self.refusing = False
        """While true, new connections are closed at once."""
        self._target = target
        self._open: dict[trio.SocketStream, trio.CancelScope] = {}
        self._flowing = trio.Event()
        self._flowing.set()

    def stall(self) -> None:
        """Keep connections open, but forward nothing, in either direction."""
        self._flowing = trio.Event()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._flowing.set()

    def drop(self) -> None:
        """Close all connections in good order (FIN)."""
        for scope in list(self._open.values()):
            scope.cancel()

    def reset(self) -> None:
        """Break all connections (RST)."""
        for stream in self._open:
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
                self._open[client] = self._open[server] = scope
                try:
                    async with server, trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, client, server, scope)
                        nursery.start_soon(self._pump, server, client, scope)
                finally:
                    del self._open[client], self._open[server]

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for chunk in source:
                await self._flowing.wait()
                await sink.send_all(chunk)
            await sink.send_eof()
        except trio.BrokenResourceError:
            scope.cancel()


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
