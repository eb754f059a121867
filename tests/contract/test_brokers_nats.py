"""What only NATS can do to the pilot: refuse it, take deliveries back by the clock, vanish and come back."""

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio
from nats_admin import as_admin, delete_stream, make_consumer

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import (
    Broker,
    BrokerLost,
    BrokerRefused,
    Delivery,
    PublishRefused,
    QueueUnavailable,
    Sink,
    Source,
)
from ewms.secret import Secret
from ewms.testing.broker import open_nats
from ewms.testing.proxy import Proxy, open_proxy

pytestmark = pytest.mark.broker

PATIENCE = 30


@attrs.frozen
class Server:
    address: str
    token: Secret
    queue: str

    def connect(
        self, proxy: Proxy | None = None, give_up_after: float = PATIENCE
    ) -> AbstractAsyncContextManager[Broker]:
        address = f"{proxy.host}:{proxy.port}" if proxy else self.address
        return open_broker("nats", address, self.token, give_up_after=give_up_after)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[Proxy, Broker]]:
        host, _, port = self.address.rpartition(":")
        async with open_proxy(host, int(port)) as proxy, self.connect(proxy) as broker:
            yield proxy, broker

    async def as_admin(self, use: Callable[[Any], Awaitable[object]]) -> Any:
        return await as_admin(self.address, self.token, use)

    async def make_consumer(self, ack_wait: float) -> None:
        await make_consumer(self.address, self.token, self.queue, ack_wait=ack_wait)

    async def delete(self) -> None:
        await delete_stream(self.address, self.token, self.queue)


@pytest.fixture
async def server(nats_access, request: pytest.FixtureRequest) -> AsyncIterator[Server]:  # type: ignore[no-untyped-def]
    server = Server(nats_access.address, nats_access.token, f"test-{abs(hash(request.node.name))}")
    yield server
    from nats.js.errors import NotFoundError

    with suppress(NotFoundError):
        await server.delete()


async def take(source: Source) -> Delivery:
    with trio.fail_after(PATIENCE):
        return await source.receive()


async def nothing_comes(source: Source, within: float) -> bool:
    with trio.move_on_after(within) as scope:
        await source.receive()
    return scope.cancelled_caught


async def put(broker: Broker, queue: str, *bodies: bytes) -> None:
    async with broker.sink(queue) as sink:
        for number, body in enumerate(bodies):
            await sink.publish(body, message_id=f"m-{number}")


# --- connecting ---


async def test_a_bad_token_is_refused_at_once_and_not_shown(server: Server) -> None:
    with pytest.raises(BrokerRefused, match=r"refused us: .*Authorization") as caught, trio.fail_after(PATIENCE):
        async with open_broker("nats", server.address, Secret("a-very-bad-token")):
            pass
    assert "a-very-bad-token" not in str(caught.value)


async def test_no_token_is_refused_at_once(server: Server) -> None:
    with pytest.raises(BrokerRefused, match="refused us"), trio.fail_after(PATIENCE):
        async with open_broker("nats", server.address, Secret("")):
            pass


async def test_a_token_in_the_address_works_too(server: Server) -> None:
    async with open_broker("nats", f"nats://{server.token.reveal()}@{server.address}", Secret("")) as broker:
        await put(broker, server.queue, b"x")


async def test_a_body_error_leaves_as_it_is(server: Server) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with server.connect() as broker, broker.source(server.queue, prefetch=1):
            raise KeyError("mine")


async def test_out_of_reach_is_given_up_after_the_setting() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(BrokerLost, match=r"out of reach for 0\.3 s"), trio.fail_after(PATIENCE):
        async with open_broker("nats", f"127.0.0.1:{port}", Secret(""), give_up_after=0.3):
            pass


# --- queues ---


async def test_a_queue_is_made_as_the_fields_client_makes_it_with_a_consumer_for_many_pilots(server: Server) -> None:
    async with server.connect() as broker, broker.source(server.queue, prefetch=1):
        pass

    async def look(jetstream: Any) -> tuple[Any, Any]:
        # As `oms-mqclient` does on each connect: it fails on a stream with other settings.
        stream = await jetstream.add_stream(name=f"{server.queue}-stream", subjects=[f"{server.queue}-subject"])
        return stream.config, (await jetstream.consumer_info(f"{server.queue}-stream", "psub")).config

    stream, consumer = await server.as_admin(look)
    assert stream.subjects == [f"{server.queue}-subject"]
    assert (consumer.ack_wait, consumer.max_ack_pending, consumer.max_waiting) == (30, -1, 50_000)


@pytest.mark.parametrize("queue", ["a.b", "a b", "a*", ""])
async def test_a_queue_name_that_cannot_be_is_refused(server: Server, queue: str) -> None:
    async with server.connect() as broker:
        with pytest.raises(BrokerRefused, match="cannot be on NATS"):
            async with broker.sink(queue):
                pass


async def test_a_consumer_of_another_kind_is_refused(server: Server) -> None:
    async def make(jetstream: Any) -> None:
        await jetstream.add_stream(name=f"{server.queue}-stream", subjects=[f"{server.queue}-subject"])
        await jetstream.subscribe(f"{server.queue}-subject", durable="psub")

    await server.as_admin(make)
    async with server.connect() as broker:
        with pytest.raises(BrokerRefused, match="no pull consumer"):
            async with broker.source(server.queue, prefetch=1):
                pass


@pytest.mark.parametrize("gone", ["stream", "consumer"])
async def test_what_is_deleted_is_made_anew_and_consuming_goes_on(server: Server, gone: str) -> None:
    async with server.connect() as broker, broker.source(server.queue, prefetch=2) as source:
        if gone == "stream":
            await server.delete()
        else:
            await server.as_admin(lambda jetstream: jetstream.delete_consumer(f"{server.queue}-stream", "psub"))
        await trio.sleep(0.5)
        await put(broker, server.queue, b"new")
        delivery = await take(source)
        assert delivery.body == b"new"
        assert await source.ack(delivery)


async def test_who_may_not_wait_now_gets_his_turn(server: Server) -> None:
    async def make(jetstream: Any) -> None:
        from nats.js.api import ConsumerConfig

        await jetstream.add_stream(name=f"{server.queue}-stream", subjects=[f"{server.queue}-subject"])
        config = ConsumerConfig(durable_name="psub", filter_subject=f"{server.queue}-subject", max_waiting=1)
        await jetstream.add_consumer(f"{server.queue}-stream", config)

    await server.as_admin(make)
    async with (
        server.connect() as broker,
        broker.source(server.queue, prefetch=1) as one,
        broker.source(server.queue, prefetch=1) as other,
    ):
        await put(broker, server.queue, b"1", b"2")
        assert {(await take(one)).body, (await take(other)).body} == {b"1", b"2"}


# --- deliveries belong to us by the clock ---


async def test_a_long_task_is_not_redelivered(server: Server) -> None:
    await server.make_consumer(ack_wait=1)
    async with (
        server.connect() as broker,
        broker.source(server.queue, prefetch=2) as source,
        broker.source(server.queue, prefetch=1) as other,
    ):
        await put(broker, server.queue, b"long", b"waits for its turn", b"at the other")
        held = await take(source)
        await take(other)
        assert await nothing_comes(other, 3)
        assert await source.ack(held)
        assert (await take(source)).returned == 0


async def test_signs_of_life_go_on_after_a_stop(server: Server) -> None:
    await server.make_consumer(ack_wait=1)
    async with server.connect() as broker, broker.source(server.queue, prefetch=1) as source:
        await put(broker, server.queue, b"long")
        held = await take(source)
        await source.stop()
        async with broker.source(server.queue, prefetch=1) as other:
            assert await nothing_comes(other, 3)
            assert await source.ack(held)


@pytest.mark.parametrize("fault", ["drop", "reset"])
async def test_what_is_in_work_survives_a_broken_connection(server: Server, fault: str) -> None:
    await server.make_consumer(ack_wait=5)
    async with server.proxied() as (proxy, broker):
        await put(broker, server.queue, b"a", b"b", b"c")
        async with broker.source(server.queue, prefetch=2) as source, broker.sink(server.queue) as sink:
            first = await take(source)
            await trio.sleep(0.3)  # "b" has come too: what is on its way then comes only after the server's patience
            listening_since = source.listening_since or math.inf
            getattr(proxy, fault)()
            assert source.holds(first)
            assert await source.ack(first)
            for expected in (b"b", b"c"):
                delivery = await take(source)
                assert (delivery.body, delivery.returned) == (expected, 0)
                assert await source.ack(delivery)
            await sink.publish(b"d", message_id="d")
            assert (await take(source)).body == b"d"
            assert (source.listening_since or 0) > listening_since
    assert proxy.connections >= 2


async def test_what_had_no_sign_of_life_for_too_long_is_taken_back(server: Server) -> None:
    # Not shorter: the other one's own signs of life must be in time on a busy machine.
    await server.make_consumer(ack_wait=4)
    async with server.proxied() as (proxy, broker), server.connect() as other_broker:
        await put(broker, server.queue, b"a")
        async with (
            broker.source(server.queue, prefetch=1) as source,
            other_broker.source(server.queue, prefetch=1) as other,
        ):
            delivery = await take(source)
            proxy.stall()
            again = await take(other)
            assert (again.body, again.returned, again.message_id) == (b"a", 1, delivery.message_id)
            # Before it can send again: a sign of life that had waited in the connection would count for this delivery.
            with trio.fail_after(PATIENCE):
                while source.holds(delivery):  # noqa: ASYNC110  our clock is behind the server's by a moment
                    await trio.sleep(0.01)
            proxy.resume()
            assert other.holds(again)
            assert not await source.reject(delivery)
            assert await other.ack(again)


async def test_a_stalled_connection_is_noticed_and_replaced(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.natswire.HEARTBEAT", 0.3)
    async with server.proxied() as (proxy, broker), broker.source(server.queue, prefetch=1) as source:
        proxy.stall()
        while proxy.connections < 2:  # noqa: ASYNC110  nobody tells
            await trio.sleep(0.05)
        proxy.resume()
        await put(broker, server.queue, b"a")
        assert (await take(source)).body == b"a"


async def test_leaving_is_quick_though_the_connection_is_stalled(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with server.proxied() as (proxy, broker):
            await put(broker, server.queue, b"a")
            async with broker.source(server.queue, prefetch=1) as source, broker.sink(server.queue) as sink:
                await take(source)
                proxy.stall()
                with trio.move_on_after(0.2):
                    await sink.publish(b"x" * 15_000_000, message_id="big")


# --- publishing ---


async def test_messages_in_flight_when_the_connection_breaks_are_there_once(server: Server) -> None:
    count = 200
    async with server.proxied() as (proxy, broker), broker.sink(server.queue) as sink:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(partial(sink.publish, b"%d" % number, message_id=str(number)))
            await trio.sleep(0.02)
            proxy.reset()
        async with server.connect() as other, other.source(server.queue, prefetch=2 * count) as source:
            got = [(await take(source)).body for _ in range(count)]
            assert sorted(got) == sorted(b"%d" % n for n in range(count))
            assert await nothing_comes(source, 0.3)


async def test_two_messages_with_one_id_are_two_messages(server: Server) -> None:
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        for body in (b"1", b"2"):
            await sink.publish(body, message_id="sämé id")
        async with broker.source(server.queue, prefetch=2) as source:
            deliveries = [await take(source), await take(source)]
            assert [(each.body, each.message_id) for each in deliveries] == [(b"1", "sämé id"), (b"2", "sämé id")]


async def test_a_message_that_is_too_large_is_refused(server: Server) -> None:
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        with pytest.raises(PublishRefused, match=r"bytes, and the broker takes 16777216"):
            await sink.publish(b"x" * 17_000_000, message_id="1")
        await sink.publish(b"x", message_id="2")


async def test_a_message_that_the_stream_does_not_take_is_refused(server: Server) -> None:
    name, subject = f"{server.queue}-stream", f"{server.queue}-subject"
    await server.as_admin(lambda jetstream: jetstream.add_stream(name=name, subjects=[subject], max_msg_size=200))
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        with pytest.raises(PublishRefused, match="does not take this message"):
            await sink.publish(b"x" * 1000, message_id="1")


async def test_a_full_queue_refuses_and_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.natssink._REFUSALS", 2)

    async def make(jetstream: Any) -> None:
        name, subject = f"{server.queue}-stream", f"{server.queue}-subject"
        await jetstream.add_stream(name=name, subjects=[subject], max_msgs=1, discard="new")

    await server.as_admin(make)
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        await sink.publish(b"x", message_id="1")
        with pytest.raises(QueueUnavailable, match="full"), trio.fail_after(PATIENCE):
            await publish_for_ever(sink)


async def publish_for_ever(sink: Sink) -> NoReturn:
    while True:
        await sink.publish(b"x", message_id="again")


async def test_a_message_to_a_queue_that_is_gone_is_refused(server: Server) -> None:
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        await sink.publish(b"x", message_id="1")
        await server.delete()
        with pytest.raises(QueueUnavailable, match="no queue"):
            await sink.publish(b"x", message_id="2")


async def test_equal_messages_of_others_have_ids_of_their_own(server: Server) -> None:
    async with server.connect() as broker, broker.source(server.queue, prefetch=2) as source:

        async def publish(jetstream: Any) -> None:
            for _ in range(2):
                await jetstream.publish(f"{server.queue}-subject", b"equal")

        await server.as_admin(publish)
        first, second = await take(source), await take(source)
        assert first.body == second.body
        assert first.message_id != second.message_id
        await source.reject(first)
        again = await take(source)
        assert (again.message_id, again.returned) == (first.message_id, 1)


# --- the server's own life ---


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restarted_server_is_found_again(server: Server, request: pytest.FixtureRequest, end: str) -> None:
    if os.environ.get("EWMS_TEST_NATS_ADDRESS"):
        pytest.skip("a server that is not ours is not restarted")
    nats = request.getfixturevalue("nats")
    async with (
        server.connect() as broker,
        broker.source(server.queue, prefetch=3) as source,
        broker.sink(server.queue) as sink,
    ):
        for number in range(4):
            await sink.publish(b"%d" % number, message_id=str(number))
        held = await take(source)
        await getattr(nats, end)()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(sink.publish, b"4", message_id="4"))
            await nats.start()
        # A short absence: what was in work is still ours.
        assert await source.ack(held)
        got = {held.body}
        while len(got) < 5:
            delivery = await take(source)
            if await source.ack(delivery):
                got.add(delivery.body)


# --- what the documentation says a token must allow ---

LIMITED = """
authorization {
  users = [
    { user: admin, password: admin-password }
    { user: pilot, password: pilot-password, permissions: {
        publish: [
          "Q-subject", "$JS.ACK.>", "$JS.API.STREAM.INFO.Q-stream", "$JS.API.CONSUMER.INFO.Q-stream.psub",
          "$JS.API.CONSUMER.MSG.NEXT.Q-stream.psub"
        ]
        subscribe: "_INBOX.>"
      }
    }
  ]
}
"""


async def test_a_token_for_one_queue_that_exists_is_enough_and_any_other_queue_is_refused(
    session_dir: Path, needed: Callable[[], AbstractContextManager[None]]
) -> None:
    work_dir = session_dir / "limiting-nats"
    work_dir.mkdir()
    with needed():
        async with open_nats(work_dir, progress=lambda _: None, extra_config=LIMITED) as nats:
            await use_what_is_allowed(nats.address)


async def use_what_is_allowed(address: str) -> None:
    await make_consumer(f"nats://admin:admin-password@{address}", Secret(""), "Q", ack_wait=1)
    async with open_broker("nats", f"nats://pilot:pilot-password@{address}", Secret("")) as broker:
        async with broker.source("Q", prefetch=1) as source:
            await put(broker, "Q", b"x")
            delivery = await take(source)
            await trio.sleep(2)
            assert await source.ack(delivery)
        with pytest.raises(BrokerRefused, match=r"does not permit it: .*stream\.info\.other-stream"):
            async with broker.sink("other"):
                pass
