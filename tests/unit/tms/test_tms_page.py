from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from ewms.tms.page import Page, serve_pages


def pages(path: str) -> Page | None:
    return {"/metrics": Page(b"x 1\n" * 100_000), "/healthz": Page(b"stuck\n", status=503)}.get(path)


@pytest.fixture
async def port(nursery: trio.Nursery) -> AsyncIterator[int]:
    yield await nursery.start(serve_pages, pages, 0)
    nursery.cancel_scope.cancel()


async def exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = b"".join([chunk async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def request(method: str = "GET", path: str = "/metrics") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_pages_are_served(port: int) -> None:
    for _ in range(3):
        head, body = await exchange(port, request())
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Length: 400000" in head
        assert body == b"x 1\n" * 100_000
    head, body = await exchange(port, request(path="/metrics?name[]=x"))
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (request(path="/healthz"), b"503", b"stuck\n"),
        (request(path="/"), b"404", b"no such page\n"),
        (request("POST"), b"405", b"only GET and HEAD\n"),
        (request("HEAD"), b"200", b""),
        (b"nonsense\r\n\r\n", b"400", b"bad request\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431", b"bad request\n"),
    ],
)
async def test_every_request_has_an_answer(port: int, sent: bytes, status: bytes, says: bytes) -> None:
    head, body = await exchange(port, sent)
    assert head.split()[1] == status
    assert body == says


async def test_a_reader_that_goes_away_or_floods_harms_nobody(port: int) -> None:
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(40)]
    for stream in streams:
        await stream.aclose()
    with trio.fail_after(60):
        while not (await exchange(port, request()))[0]:  # noqa: ASYNC110  the server does not tell
            await trio.sleep(0.01)


async def test_a_slow_reader_is_given_up(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    port = await nursery.start(serve_pages, pages, 0)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HT")
        assert await stream.receive_some() == b""
        assert trio.current_time() < 60
    nursery.cancel_scope.cancel()


async def test_it_listens_on_this_machine_only(port: int) -> None:
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.2", port)


async def test_a_taken_port_is_an_os_error(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        await serve_pages(pages, port)
