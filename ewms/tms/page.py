"""A few read-only pages over HTTP, on this machine only: `GET` and one answer for each connection."""

from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

import attrs
import h11
import structlog
import trio

log = structlog.stdlib.get_logger(__name__)

HOST: Final = "127.0.0.1"
"""Only who is on this machine sees the pages."""
_PATIENCE: Final = 10.0
"""For one whole exchange, in s."""
_CONNECTIONS: Final = 16
_MAX_HEADERS: Final = 16384


@attrs.frozen
class Page:
    """An answer."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Pages = Callable[[str], Page | None]
"""The page at a path; None: there is none."""


async def serve_pages(
    pages: Pages, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Serve for ever; reports the port, which is a free one when 0 was asked for.

    Raises:
        OSError: the port is taken.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=HOST)
    except OSError as error:
        raise OSError(error.errno, f"port {port} on {HOST}: {error.strerror}") from error
    task_status.started(listeners[0].socket.getsockname()[1])
    limit = trio.CapacityLimiter(_CONNECTIONS)
    await trio.serve_listeners(partial(_serve_one, pages, limit), listeners)


async def _serve_one(pages: Pages, limit: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    try:
        limit.acquire_nowait()
    except trio.WouldBlock:
        await trio.aclose_forcefully(stream)
        return
    try:
        with trio.move_on_after(_PATIENCE):
            await _exchange(pages, stream)
    except (trio.BrokenResourceError, h11.ProtocolError) as error:
        log.debug("a reader of the status pages was rude", error=str(error))
    finally:
        limit.release()
        await trio.aclose_forcefully(stream)


async def _exchange(pages: Pages, stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)
    try:
        request = await _request(connection, stream)
        page = None if request is None else _answer(pages, request)
        head_only = request is not None and request.method == b"HEAD"
    except h11.RemoteProtocolError as error:
        page, head_only = Page(b"bad request\n", status=error.error_status_hint), False
    if page is not None:
        await stream.send_all(_written(connection, page, head_only=head_only))
        # Closing before the reader is done sending would take the answer away from it.
        await stream.send_eof()
        while await stream.receive_some(4096):
            pass


async def _request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The request, or None when the reader went away before it was whole."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await stream.receive_some(4096))


def _answer(pages: Pages, request: h11.Request) -> Page:
    if request.method not in (b"GET", b"HEAD"):
        return Page(b"only GET and HEAD\n", status=405)
    return pages(request.target.decode("latin-1").partition("?")[0]) or Page(b"no such page\n", status=404)


def _written(connection: h11.Connection, page: Page, *, head_only: bool) -> bytes:
    headers = [
        ("Content-Type", page.content_type),
        ("Content-Length", str(len(page.body))),
        ("Connection", "close"),
    ]
    parts = [connection.send(h11.Response(status_code=page.status, headers=headers))]
    if not head_only:
        parts.append(connection.send(h11.Data(data=page.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(filter(None, parts))
