"""The brokers' servers for tests: they can be stopped, killed and started again, at the same address."""

import pytest
import trio

from ewms.testing.broker import BrokerServer

pytestmark = pytest.mark.broker

OLDEST = {"rabbit": (4, 0), "nats": (2, 10)}


async def accepts(server: BrokerServer) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", server.port):
            return True
    except OSError:
        return False


@pytest.fixture(params=OLDEST)
def server(request: pytest.FixtureRequest) -> BrokerServer:
    started: BrokerServer = request.getfixturevalue(request.param)
    return started


@pytest.mark.parametrize("name", OLDEST)
def test_says_its_version(name: str, request: pytest.FixtureRequest) -> None:
    server: BrokerServer = request.getfixturevalue(name)
    major, minor, *_ = map(int, server.version.split("."))
    assert (major, minor) >= OLDEST[name]
    assert server.address.endswith(f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_ends_and_starts_again(server: BrokerServer, how: str) -> None:
    assert await accepts(server)
    await (server.stop() if how == "stop" else server.kill())
    assert not await accepts(server)
    await server.start()
    assert await accepts(server)
