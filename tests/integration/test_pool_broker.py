"""The RabbitMQ server for tests: it can be stopped, killed and started again, at the same address."""

import pytest
import trio

from ewms.testing.broker import RabbitServer

pytestmark = pytest.mark.broker


async def accepts(server: RabbitServer) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", server.port):
            return True
    except OSError:
        return False


def test_says_its_version(rabbit: RabbitServer) -> None:
    assert int(rabbit.version.split(".")[0]) >= 4
    assert rabbit.address == f"ewms@127.0.0.1:{rabbit.port}"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_ends_and_starts_again(rabbit: RabbitServer, how: str) -> None:
    assert await accepts(rabbit)
    await (rabbit.stop() if how == "stop" else rabbit.kill())
    assert not await accepts(rabbit)
    await rabbit.start()
    assert await accepts(rabbit)
