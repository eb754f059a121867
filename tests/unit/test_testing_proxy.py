"""The fault proxy does what its methods say."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio

from ewms.testing.proxy import Proxy, open_proxy


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send_all(chunk)


@pytest.fixture
async def proxy(nursery: trio.Nursery) -> AsyncIterator[Proxy]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, quiet_echo, [listener])
    async with open_proxy(*listener.socket.getsockname()) as proxy:
        yield proxy


async def quiet_echo(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        await echo(stream)


async def connect(proxy: Proxy) -> trio.SocketStream:
    return await trio.open_tcp_stream(proxy.host, proxy.port)


async def test_it_forwards_both_ways_and_the_end(proxy: Proxy) -> None:
    async with await connect(proxy) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.send_eof()
        with trio.fail_after(30):
            assert await stream.receive_some() == b""


async def test_a_stall_holds_everything_back_until_it_is_resumed(proxy: Proxy) -> None:
    async with await connect(proxy) as stream:
        proxy.stall()
        await stream.send_all(b"hello")
        with trio.move_on_after(0.05) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        proxy.resume()
        with trio.fail_after(30):
            assert await stream.receive_some() == b"hello"


async def test_dropped_connections_end_and_new_ones_work(proxy: Proxy) -> None:
    async with await connect(proxy) as stream:
        await stream.send_all(b"x")
        await stream.receive_some()
        proxy.drop()
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
    async with await connect(proxy) as stream:
        await stream.send_all(b"y")
        assert await stream.receive_some() == b"y"
    assert proxy.connections == 2


async def test_reset_connections_break(proxy: Proxy) -> None:
    async with await connect(proxy) as stream:
        await stream.send_all(b"x")
        await stream.receive_some()
        proxy.reset()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(30):
            await stream.receive_some()


async def test_refused_connections_end_at_once(proxy: Proxy) -> None:
    proxy.refusing = True
    async with await connect(proxy) as stream:
        with trio.fail_after(30):
            assert await stream.receive_some() == b""


async def test_a_severed_connection_swallows_all_and_is_not_healed(proxy: Proxy) -> None:
    async with await connect(proxy) as old:
        await old.send_all(b"x")
        assert await old.receive_some() == b"x"
        proxy.sever()
        async with await connect(proxy) as born_dead:
            for stream in (old, born_dead):
                await stream.send_all(b"hello")
                await stream.send_eof()
                with trio.move_on_after(0.05) as scope:
                    await stream.receive_some()
                assert scope.cancelled_caught
        proxy.resume()
        with trio.move_on_after(0.05) as scope:
            await old.receive_some()
        assert scope.cancelled_caught
        async with await connect(proxy) as new:
            await new.send_all(b"y")
            assert await new.receive_some() == b"y"
        proxy.reset()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(30):
            await old.receive_some()


@pytest.mark.parametrize("how", ["delay", "loss"])
async def test_what_is_held_back_or_lost_comes_later_in_order(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("ewms.testing.proxy._RETRANSMISSION_S", (0.1, 0.1))
    setattr(proxy, how, {"delay": 0.1, "loss": 1.0}[how])
    async with await connect(proxy) as stream:
        began = trio.current_time()
        await stream.send_all(b"one")
        said = b""
        while len(said) < 6:
            said += await stream.receive_some()
            if said == b"one":
                await stream.send_all(b"two")
        assert said == b"onetwo"
        assert trio.current_time() - began >= 0.4
