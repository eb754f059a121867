"""What only RabbitMQ can do to the pilot: refuse it, return its messages, close channels, vanish and come back."""

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.amqpaddress import parse_address
from ewms.pilot.brokers.base import (
    Broker,
    BrokerLost,
    BrokerRefused,
    Delivery,
    QueueUnavailable,
    Sink,
    Source,
)
from ewms.secret import Secret
from ewms.testing.broker import RabbitServer, open_rabbitmq
from ewms.testing.proxy import Proxy, open_proxy

pytestmark = pytest.mark.broker

PATIENCE = 30


@attrs.frozen
class Server:
    host: str
    port: int
    user: str
    password: Secret
    queue: str

    def address(self, port: int | None = None) -> str:
        return f"amqp://{self.user}@{self.host}:{port or self.port}"

    def connect(
        self, proxy: Proxy | None = None, give_up_after: float = PATIENCE
    ) -> AbstractAsyncContextManager[Broker]:
        address = self.address(proxy.port if proxy else None)
        return open_broker("rabbitmq", address, self.password, give_up_after=give_up_after)

    async def as_admin(self, use: Callable[[Any], object]) -> None:
        """Do something that a pilot may not, with another client."""
        import pika  # not there on Python 3.14

        credentials = pika.PlainCredentials(self.user, self.password.reveal())

        def work() -> None:
            with pika.BlockingConnection(pika.ConnectionParameters(self.host, self.port, "/", credentials)) as admin:
                use(admin.channel())

        await trio.to_thread.run_sync(work)


@pytest.fixture
async def server(rabbit_access, request: pytest.FixtureRequest) -> AsyncIterator[Server]:  # type: ignore[no-untyped-def]
    where = parse_address(rabbit_access.address, rabbit_access.token)
    server = Server(where.host, where.port, where.user, where.password, f"test-{abs(hash(request.node.name))}")
    yield server
    await server.as_admin(lambda channel: channel.queue_delete(server.queue))


async def take(source: Source) -> Delivery:
    with trio.fail_after(PATIENCE):
        return await source.receive()


async def put(broker: Broker, queue: str, *bodies: bytes) -> None:
    async with broker.sink(queue) as sink:
        for number, body in enumerate(bodies):
            await sink.publish(body, message_id=f"m-{number}")


async def test_bad_credentials_are_refused_at_once_and_not_shown(server: Server) -> None:
    with pytest.raises(BrokerRefused, match="refused us") as caught, trio.fail_after(PATIENCE):
        async with open_broker("rabbitmq", server.address(), Secret("a-very-bad-token")):
            pass
    assert "a-very-bad-token" not in str(caught.value)


async def test_who_may_not_write_to_a_queue_is_told_at_once(server: Server, request: pytest.FixtureRequest) -> None:
    async with restricted(server, request, write="^$") as broker, broker.sink(server.queue) as sink:
        for _ in range(2):
            with (
                pytest.raises(BrokerRefused, match=r"may not be written to: .*amq\.default"),
                trio.fail_after(PATIENCE),
            ):
                await sink.publish(b"x", message_id="1")


async def test_who_may_not_read_a_queue_is_told_at_once(server: Server, request: pytest.FixtureRequest) -> None:
    """Declaring the queue, and looking for it, needs no such permission."""
    async with restricted(server, request, read="^$") as broker:
        with pytest.raises(BrokerRefused, match=r"cannot be used: .*read"), trio.fail_after(PATIENCE):
            async with broker.source(server.queue, prefetch=1):
                pass


@asynccontextmanager
async def restricted(
    server: Server, request: pytest.FixtureRequest, *, write: str = ".*", read: str = ".*"
) -> AsyncIterator[Broker]:
    """As a user who may do only a part of what a pilot does; the queue is there."""
    if os.environ.get("EWMS_TEST_RABBITMQ_ADDRESS"):
        pytest.skip("a server that is not ours gets no users")
    rabbit: RabbitServer = request.getfixturevalue("rabbit")
    user, password = f"user-of-{server.queue}", Secret("part")
    async with server.connect() as broker, broker.sink(server.queue):
        await rabbit.ctl("add_user", user, password.reveal())
        try:
            await rabbit.ctl("set_permissions", "-p", "/", user, ".*", write, read)
            async with open_broker("rabbitmq", f"amqp://{user}@{server.host}:{server.port}", password) as theirs:
                yield theirs
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
                await rabbit.ctl("delete_user", user)


async def test_an_unknown_virtual_host_is_refused(server: Server) -> None:
    with pytest.raises(BrokerRefused, match="nowhere"), trio.fail_after(PATIENCE):
        async with open_broker("rabbitmq", server.address() + "/nowhere", server.password):
            pass


async def test_an_empty_user_name_is_sent_as_such(server: Server) -> None:
    with pytest.raises(BrokerRefused) as caught, trio.fail_after(PATIENCE):
        async with open_broker("rabbitmq", f"{server.host}:{server.port}", server.password):
            pass
    assert "guest" not in str(caught.value)


async def test_a_body_error_leaves_as_it_is(server: Server) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with server.connect() as broker, broker.source(server.queue, prefetch=1):
            raise KeyError("mine")


async def test_out_of_reach_is_given_up_after_the_setting() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(BrokerLost, match=r"out of reach for 0\.3 s"), trio.fail_after(PATIENCE):
        async with open_broker("rabbitmq", f"127.0.0.1:{port}", Secret(""), give_up_after=0.3):
            pass


async def test_a_message_to_a_queue_that_is_gone_is_refused(server: Server) -> None:
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        await sink.publish(b"x", message_id="1")
        await server.as_admin(lambda channel: channel.queue_delete(server.queue))
        with pytest.raises(QueueUnavailable, match="no queue"):
            await sink.publish(b"x", message_id="2")


async def test_a_queue_with_other_arguments_is_used_as_it_is(server: Server) -> None:
    await server.as_admin(lambda channel: channel.queue_declare(server.queue, durable=True))
    async with server.connect() as broker:
        await put(broker, server.queue, b"x")
        async with broker.source(server.queue, prefetch=1) as source:
            delivery = await take(source)
            assert await source.reject(delivery)
            assert (await take(source)).returned == 1


async def test_a_full_queue_refuses_and_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.rabbitsink._NACKS", 2)
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await server.as_admin(lambda channel: channel.queue_declare(server.queue, durable=True, arguments=arguments))
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        await sink.publish(b"x", message_id="1")
        with pytest.raises(QueueUnavailable, match="full"), trio.fail_after(PATIENCE):
            await publish_for_ever(sink)


async def publish_for_ever(sink: Sink) -> NoReturn:
    while True:
        await sink.publish(b"x", message_id="again")


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[tuple[Proxy, Broker]]:
    async with open_proxy(server.host, server.port) as proxy, server.connect(proxy) as broker:
        yield proxy, broker


@pytest.mark.parametrize("fault", ["drop", "reset"])
async def test_after_a_broken_connection_all_goes_on(server: Server, fault: str) -> None:
    async with proxied(server) as (proxy, broker):
        await put(broker, server.queue, b"a", b"b", b"c")
        async with broker.source(server.queue, prefetch=2) as source, broker.sink(server.queue) as sink:
            first = await take(source)
            assert source.holds(first)
            listening_since = source.listening_since or math.inf
            getattr(proxy, fault)()
            # "b" was pushed, but not given out: it is forgotten here, and comes again.
            bodies: set[bytes] = set()
            while bodies != {b"a", b"b", b"c"}:
                delivery = await take(source)
                if await source.ack(delivery):
                    bodies.add(delivery.body)
            assert (source.listening_since or 0) > listening_since
            assert not source.holds(first)
            assert not await source.ack(first)
            await sink.publish(b"d", message_id="d")
            assert (await take(source)).body == b"d"
    assert proxy.connections >= 2


async def test_a_stalled_connection_is_noticed_and_replaced(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.rabbitmq.HEARTBEAT", 1)
    async with proxied(server) as (proxy, broker):
        await put(broker, server.queue, b"a")
        async with broker.source(server.queue, prefetch=1) as source:
            delivery = await take(source)
            proxy.stall()
            while proxy.connections < 2:  # noqa: ASYNC110  nobody tells
                await trio.sleep(0.05)
            proxy.resume()
            assert (await take(source)).body == b"a"
            assert not await source.reject(delivery)


async def test_a_verdict_that_was_given_up_is_given_when_the_connection_goes_on(server: Server) -> None:
    """Its channel lives, so nobody else would ever get the event."""
    large = f"{server.queue}-large"
    async with proxied(server) as (proxy, broker):
        await put(broker, server.queue, b"a")
        async with broker.source(server.queue, prefetch=1) as source, broker.sink(large) as sink:
            delivery = await take(source)
            connections = proxy.connections
            proxy.stall()
            async with trio.open_nursery() as nursery:
                for number in range(2):  # what is sent after them does not even leave this process
                    nursery.start_soon(partial(sink.publish, b"x" * 12_000_000, message_id=str(number)))
                await trio.sleep(0.5)
                with trio.move_on_after(0.5) as impatient:
                    await source.reject(delivery)
                assert impatient.cancelled_caught
                proxy.resume()
                again = await take(source)
            assert (again.body, again.returned) == (b"a", 1)
            assert await source.ack(again)
            assert proxy.connections == connections
    await server.as_admin(lambda channel: channel.queue_delete(large))


async def test_leaving_is_quick_though_the_connection_is_stalled(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with proxied(server) as (proxy, broker):
            await put(broker, server.queue, b"a")
            async with broker.source(server.queue, prefetch=1) as source, broker.sink(server.queue) as sink:
                await take(source)
                proxy.stall()
                with trio.move_on_after(0.2):
                    await sink.publish(b"x" * 20_000_000, message_id="big")


async def test_messages_in_flight_when_the_connection_breaks_are_published_again(server: Server) -> None:
    count = 200
    async with proxied(server) as (proxy, broker), broker.sink(server.queue) as sink:
        async with trio.open_nursery() as nursery:

            async def publish(number: int) -> None:
                await sink.publish(b"%d" % number, message_id=str(number))

            for number in range(count):
                nursery.start_soon(publish, number)
            await trio.sleep(0.02)
            proxy.reset()
        async with server.connect() as other, other.source(server.queue, prefetch=500) as source:
            got: set[bytes] = set()
            while len(got) < count:
                got.add((await take(source)).body)


async def test_a_channel_that_the_broker_closes_is_reopened(server: Server) -> None:
    async with server.connect() as broker:
        await put(broker, server.queue, b"a", b"b")
        async with broker.source(server.queue, prefetch=1) as source:
            first = await take(source)
            await first.tag.channel.ack(9999)  # as after `consumer_timeout`: 406, and the channel is closed
            again = await take(source)
            assert again.body == b"a"
            assert not await source.ack(first)
            assert await source.ack(again)
            assert (await take(source)).body == b"b"


async def test_two_messages_with_one_id_in_flight_are_both_confirmed(server: Server) -> None:
    async with server.connect() as broker, broker.sink(server.queue) as sink:
        async with trio.open_nursery() as nursery:

            async def publish(body: bytes) -> None:
                await sink.publish(body, message_id="same")

            for body in (b"1", b"2", b"3"):
                nursery.start_soon(publish, body)
        async with broker.source(server.queue, prefetch=3) as source:
            assert {(await take(source)).body for _ in range(3)} == {b"1", b"2", b"3"}


async def test_a_consumer_whose_queue_is_deleted_and_made_anew_goes_on(server: Server) -> None:
    async with server.connect() as broker, broker.source(server.queue, prefetch=1) as source:
        await server.as_admin(lambda channel: channel.queue_delete(server.queue))
        await trio.sleep(0.5)
        await put(broker, server.queue, b"new")
        assert (await take(source)).body == b"new"


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restarted_broker_is_found_again(server: Server, request: pytest.FixtureRequest, end: str) -> None:
    if os.environ.get("EWMS_TEST_RABBITMQ_ADDRESS"):
        pytest.skip("a server that is not ours is not restarted")
    rabbit = request.getfixturevalue("rabbit")
    async with (
        server.connect() as broker,
        broker.source(server.queue, prefetch=3) as source,
        broker.sink(server.queue) as sink,
    ):
        for number in range(4):
            await sink.publish(b"%d" % number, message_id=str(number))
        held = await take(source)
        if end == "kill":
            # RabbitMQ 4.3 syncs its list of quorum queues now and then: one that is younger comes back empty.
            await trio.sleep(6)
        await getattr(rabbit, end)()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(sink.publish, b"4", message_id="4"))
            await rabbit.start()
        got: set[bytes] = set()
        while len(got) < 5:
            delivery = await take(source)
            if await source.ack(delivery):
                got.add(delivery.body)
        assert not await source.ack(held)


async def test_what_was_too_long_in_work_is_taken_back_and_the_rest_goes_on(
    session_dir: Path, needed: Callable[[], AbstractContextManager[None]]
) -> None:
    """RabbitMQ's own `consumer_timeout`, on a server that has little patience."""
    work_dir = session_dir / "impatient-rabbit"
    work_dir.mkdir()
    config = "consumer_timeout = 12000\n"
    with needed():
        async with open_rabbitmq(work_dir, progress=lambda _: None, extra_config=config) as rabbit:
            await outlast_consumer_timeout(rabbit)


async def outlast_consumer_timeout(rabbit: RabbitServer) -> None:
    async with (
        open_broker("rabbitmq", rabbit.address, rabbit.token) as broker,
        broker.source("q", prefetch=2) as source,
        broker.sink("q") as sink,
    ):
        await sink.publish(b"long", message_id="1")
        long = await take(source)
        await trio.sleep(6)
        await sink.publish(b"short", message_id="2")
        short = await take(source)
        again = await take(source)
        assert (again.body, again.returned) == (b"long", 1)
        assert [source.holds(each) for each in (long, short, again)] == [False, False, True]
        assert await source.ack(short), "it is not as old as the one that was taken back"
        assert not await source.ack(long)
        assert await source.ack(again)
        await sink.publish(b"next", message_id="3")
        assert (await take(source)).body == b"next", "what had a verdict came again"
