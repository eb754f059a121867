"""The user's side of the embedded broker, beside a pilot's."""

from pathlib import Path

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.localstore import Depth
from ewms.secret import Secret
from ewms.testing import localqueue


async def test_put_look_and_drain_beside_a_consumer(tmp_path: Path) -> None:
    await localqueue.put(tmp_path, "q", ["text", b"\xff", {"n": 1}])
    assert await localqueue.counts(tmp_path) == {"q": Depth(ready=3, unacked=0)}
    async with (
        open_broker("local", str(tmp_path), Secret("")) as broker,
        broker.source("q", prefetch=1) as source,
    ):
        await source.receive()
        assert await localqueue.counts(tmp_path) == {"q": Depth(ready=2, unacked=1)}
        assert [event.data for event in await localqueue.drain(tmp_path, "q")] == [b"\xff", {"n": 1}]
    assert [event.data for event in await localqueue.drain(tmp_path, "q")] == ["text"]
    assert await localqueue.counts(tmp_path) == {}
