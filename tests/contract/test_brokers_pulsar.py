"""What only Pulsar can do to the pilot, played by a stand-in for its broker to the true client library.

No Pulsar broker could be had where these were written. What a broker does is taken from its documentation; what the
library does is seen.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import trio
from broker_places import nothing_comes, put
from pulsar_standin import Command, ServerError, Standin, open_standin

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import Broker, BrokerLost, BrokerRefused, Delivery, PublishRefused, Source
from ewms.secret import Secret
from ewms.testing.proxy import Proxy, open_proxy

pytest.importorskip("pulsar")

TOKEN = "the-token-of-these-tests"
QUEUE = "some-queue"
PATIENCE = 30


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with open_standin(TOKEN) as standin:
        yield standin


def connect(
    standin: Standin, proxy: Proxy | None = None, give_up_after: float = PATIENCE
) -> AbstractAsyncContextManager[Broker]:
    address = f"{proxy.host}:{proxy.port}" if proxy else standin.address
    return open_broker("pulsar", address, Secret(TOKEN), give_up_after=give_up_after)


@asynccontextmanager
async def proxied(standin: Standin) -> AsyncIterator[tuple[Proxy, Broker]]:
    async with open_proxy(standin.host, standin.port) as proxy, connect(standin, proxy) as broker:
        yield proxy, broker


async def take(source: Source) -> Delivery:
    with trio.fail_after(PATIENCE):
        return await source.receive()


# --- connecting ---


@pytest.mark.parametrize("token", ["a-very-bad-token", ""])
async def test_a_bad_token_is_refused_at_once_and_not_shown(standin: Standin, token: str) -> None:
    with pytest.raises(BrokerRefused, match="refused us: Failed to authenticate") as caught, trio.fail_after(PATIENCE):
        async with open_broker("pulsar", standin.address, Secret(token)):
            pass
    assert "a-very-bad-token" not in str(caught.value)
    assert standin.seen == [Command.CONNECT]


async def test_a_token_that_is_not_taken_any_more_ends_a_source(standin: Standin) -> None:
    async with proxied(standin) as (proxy, broker), broker.source(QUEUE, prefetch=1) as source:
        standin.token = Secret("another-token")
        proxy.drop()
        with pytest.raises(BrokerRefused, match="refused us"):
            await take(source)


async def test_a_body_error_leaves_as_it_is(standin: Standin) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(standin) as broker, broker.source(QUEUE, prefetch=1):
            raise KeyError("mine")


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(BrokerLost, match=r"out of reach for 0\.3 s"), trio.fail_after(PATIENCE):
        async with open_broker("pulsar", f"127.0.0.1:{port}", Secret(TOKEN), give_up_after=0.3):
            pass


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, r"no answer within 0\.2 s"), (b"", "closed before"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Pulsar")],
    ids=["silent", "hangs up", "speaks HTTP"],
)
async def test_who_listens_is_no_broker(answer: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.pulsarhello.HELLO_TIMEOUT", 0.2)

    async def listen(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, listen, 0, host="127.0.0.1"))
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(BrokerLost, match=reason), trio.fail_after(PATIENCE):
            async with open_broker("pulsar", address, Secret(TOKEN), give_up_after=0.3):
                pass
        nursery.cancel_scope.cancel()


async def test_the_second_server_of_an_address_will_do(standin: Standin) -> None:
    address = f"127.0.0.1:1,{standin.host}:{standin.port}"
    async with open_broker("pulsar", address, Secret(TOKEN), give_up_after=PATIENCE) as broker:
        await put(broker, QUEUE, b"x")


# --- queues ---


@pytest.mark.parametrize("error", [ServerError.AUTHORIZATION, ServerError.TOPIC_NOT_FOUND, ServerError.NOT_ALLOWED])
@pytest.mark.parametrize("command", [Command.PARTITIONS, Command.LOOKUP, Command.SUBSCRIBE])
async def test_a_refused_queue_is_told_at_once(standin: Standin, command: Command, error: ServerError) -> None:
    standin.refuse[command] = error
    async with connect(standin) as broker:
        for use in (broker.source(QUEUE, prefetch=1), broker.sink(QUEUE)):
            with pytest.raises(BrokerRefused, match=f"queue '{QUEUE}' cannot be used"), trio.fail_after(PATIENCE):
                async with use:
                    pass


async def test_who_may_not_publish_is_told_at_once(standin: Standin) -> None:
    standin.refuse[Command.PRODUCER] = ServerError.AUTHORIZATION
    async with connect(standin) as broker:
        with pytest.raises(BrokerRefused, match="AuthorizationError"), trio.fail_after(PATIENCE):
            async with broker.sink(QUEUE):
                pass


@pytest.mark.parametrize("queue", ["", "persistent://public/default/", "other://public/default/x"])
async def test_a_queue_name_that_cannot_be_is_refused(standin: Standin, queue: str) -> None:
    async with connect(standin) as broker:
        with pytest.raises(BrokerRefused, match="cannot be used"), trio.fail_after(PATIENCE):
            async with broker.source(queue, prefetch=1):
                pass


async def test_a_partitioned_topic_is_refused(standin: Standin) -> None:
    standin.partitions = 2
    async with connect(standin) as broker:
        with pytest.raises(BrokerRefused, match="partitioned topic"), trio.fail_after(PATIENCE):
            async with broker.source(QUEUE, prefetch=1):
                pass


async def test_a_queue_that_is_not_ready_is_waited_for(standin: Standin) -> None:
    standin.refuse[Command.LOOKUP] = ServerError.NOT_READY
    async with connect(standin) as broker, trio.open_nursery() as nursery:
        nursery.start_soon(put, broker, QUEUE, b"x")
        await standin.until_seen(Command.LOOKUP, 2)
        standin.refuse.clear()
        async with broker.source(QUEUE, prefetch=1) as source:
            assert (await take(source)).body == b"x"


async def test_topic_and_subscription_are_the_fields_clients(standin: Standin) -> None:
    async with connect(standin) as broker, broker.sink(QUEUE):
        pass
    assert {topic: list(subscriptions) for topic, subscriptions in standin.topics.items()} == {
        f"persistent://public/default/{QUEUE}": ["i3-pulsar-sub"]
    }


# --- deliveries ---


@pytest.mark.parametrize("fault", ["drop", "reset"])
async def test_after_a_broken_connection_all_goes_on(standin: Standin, fault: str) -> None:
    async with proxied(standin) as (proxy, broker):
        await put(broker, QUEUE, b"a", b"b", b"c")
        async with broker.source(QUEUE, prefetch=2) as source, broker.sink(QUEUE) as sink:
            first = await take(source)
            assert source.holds(first)
            getattr(proxy, fault)()
            bodies: set[bytes] = set()
            while len(bodies) < 3:
                delivery = await take(source)
                if await source.ack(delivery):
                    bodies.add(delivery.body)
            assert not source.holds(first)
            assert not await source.ack(first)
            await sink.publish(b"d", message_id="d")
            assert (await take(source)).body == b"d"


async def test_what_comes_again_after_a_broken_connection_is_the_same_message(standin: Standin) -> None:
    async with proxied(standin) as (proxy, broker):
        await put(broker, QUEUE, b"a")
        async with broker.source(QUEUE, prefetch=1) as source:
            first, since = await take(source), source.listening_since
            # All places are taken: nobody waits for a message.
            proxy.drop()
            again = await take(source)
            assert since is not None
            assert source.listening_since is not None
            assert source.listening_since > since
            assert (again.body, again.message_id, again.returned) == (b"a", first.message_id, 0)
            assert await source.ack(again)


async def test_a_topic_may_move(standin: Standin) -> None:
    async with connect(standin) as broker, broker.source(QUEUE, prefetch=2) as source:
        await put(broker, QUEUE, b"a")
        held = await take(source)
        standin.unload(f"persistent://public/default/{QUEUE}")
        again = await take(source)
        assert (again.body, source.holds(held), source.holds(again)) == (b"a", False, True)
        assert await source.ack(again)
        await put(broker, QUEUE, b"b")
        assert (await take(source)).body == b"b"


SOMEBODY_ELSE = """
import sys, pulsar

address, queue, token, batches = sys.argv[1:]
quiet = pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null")
client = pulsar.Client(address, authentication=pulsar.AuthenticationToken(token), logger=quiet)
producer = client.create_producer(queue, batching_enabled=bool(batches), batching_max_publish_delay_ms=60_000)
for body in (b"theirs", b"too"):
    producer.send_async(body, lambda *_: None, properties={"a": "b"})
producer.flush()
client.close()
"""


async def somebody_else_publishes(standin: Standin, *, in_batches: bool = False) -> None:
    args = [standin.address, QUEUE, TOKEN, "yes" if in_batches else ""]
    with trio.fail_after(PATIENCE):
        await trio.run_process([sys.executable, "-c", SOMEBODY_ELSE, *args])


async def test_a_message_of_somebody_else_is_known_by_its_position(standin: Standin) -> None:
    async with connect(standin) as broker, broker.source(QUEUE, prefetch=1) as source:
        await put(broker, QUEUE, b"x")
        ours = await take(source)
        assert (ours.message_id, dict(ours.headers)) == ("m-0", {"ewms-message-id": "m-0"})
        await source.ack(ours)
        await somebody_else_publishes(standin)
        theirs = await take(source)
        assert (theirs.body, theirs.message_id, dict(theirs.headers)) == (b"theirs", "(1,1,-1,-1)", {"a": "b"})


async def test_messages_in_batches_are_refused_because_they_would_get_lost_one_by_one(standin: Standin) -> None:
    async with connect(standin) as broker, broker.source(QUEUE, prefetch=1) as source:
        await somebody_else_publishes(standin, in_batches=True)
        with pytest.raises(BrokerRefused, match="published in batches"):
            await take(source)
    assert [len(each.waiting) for topic in standin.topics.values() for each in topic.values()] == [1]


async def test_leaving_is_quick_though_the_connection_is_stalled(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.link.CLOSE_TIMEOUT", 0.5)
    with trio.fail_after(PATIENCE):
        async with proxied(standin) as (proxy, broker):
            await put(broker, QUEUE, b"a")
            async with broker.source(QUEUE, prefetch=1) as source, broker.sink(QUEUE) as sink:
                await take(source)
                proxy.stall()
                with trio.move_on_after(0.2):
                    await sink.publish(b"x" * 4_000_000, message_id="big")


# --- publishing ---


async def test_messages_in_flight_when_the_connection_breaks_are_all_there(standin: Standin) -> None:
    count = 100
    async with proxied(standin) as (proxy, broker), broker.sink(QUEUE) as sink:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(partial(sink.publish, b"%d" % number, message_id=str(number)))
            await trio.sleep(0.01)
            proxy.reset()
        got: set[bytes] = set()
        async with connect(standin) as other, other.source(QUEUE, prefetch=2 * count) as source:
            while len(got) < count:
                got.add((await take(source)).body)


async def test_a_message_that_is_too_large_is_refused(standin: Standin) -> None:
    async with connect(standin) as broker, broker.sink(QUEUE) as sink:
        with pytest.raises(PublishRefused, match="MessageTooBig, 6000000 bytes"):
            await sink.publish(b"x" * 6_000_000, message_id="1")
        await sink.publish(b"x", message_id="2")


async def test_what_is_not_confirmed_is_published_again(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ewms.pilot.brokers.pulsarwire.CONFIRM_TIMEOUT", 0.3)
    standin.confirms = False
    async with connect(standin) as broker, broker.sink(QUEUE) as sink, trio.open_nursery() as nursery:
        nursery.start_soon(partial(sink.publish, b"x", message_id="1"))
        await standin.until_seen(Command.SEND, 2)
        standin.confirms = True
    async with connect(standin) as broker, broker.source(QUEUE, prefetch=5) as source:
        assert [(await take(source)).message_id for _ in range(2)] == ["1", "1"]


async def test_a_broker_that_cannot_store_is_given_up(standin: Standin) -> None:
    standin.refuse[Command.SEND] = ServerError.PERSISTENCE
    async with connect(standin, give_up_after=0.5) as broker, broker.sink(QUEUE) as sink:
        with pytest.raises(BrokerLost, match="took no message"), trio.fail_after(PATIENCE):
            await sink.publish(b"x", message_id="1")


async def test_a_stopped_source_gives_back_what_it_had_asked_for(standin: Standin) -> None:
    async with connect(standin) as broker, broker.source(QUEUE, prefetch=2) as source:
        await source.stop()
        await put(broker, QUEUE, b"x")
        assert await nothing_comes(source)
        async with broker.source(QUEUE, prefetch=1) as other:
            delivery = await take(other)
            assert (delivery.body, delivery.returned) == (b"x", 1)
