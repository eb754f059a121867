"""What every message broker adapter does: one suite for the embedded broker, and for real RabbitMQ and NATS servers.

The pilot relies on nothing else of a broker than what is asserted here.
"""

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import trio
from broker_places import PATIENCE, Place, nothing_comes, put, take
from nats_admin import make_consumer

from ewms.pilot.brokers.base import Broker, Delivery, Source


@pytest.fixture
async def broker(place: Place) -> AsyncIterator[Broker]:
    if place.broker_type == "nats":
        # Longer than that a passing test waits for what a killed consumer held.
        await make_consumer(place.address, place.token, place.queue, ack_wait=2)
    async with place.connect() as broker:
        yield broker


async def test_what_is_published_is_received_in_order_and_gone_once_acked(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"one", b"two")
    async with broker.source(place.queue, prefetch=1) as source:
        assert source.queue == place.queue
        assert source.listening_since is not None
        assert source.listening_since <= trio.current_time()
        first = await take(source)
        assert (first.body, first.message_id, first.queue, first.returned) == (b"one", "m-0", place.queue, 0)
        assert await source.ack(first)
        second = await take(source)
        assert second.body == b"two"
        assert await source.ack(second)
    async with broker.source(place.queue, prefetch=5) as source:
        assert await nothing_comes(source)


@pytest.mark.parametrize("body", [b"", bytes(range(256)), b"x" * 5_000_000], ids=["empty", "binary", "5 MB"])
async def test_bodies_come_as_they_were_sent(broker: Broker, place: Place, body: bytes) -> None:
    await put(broker, place.queue, body)
    async with broker.source(place.queue, prefetch=1) as source:
        delivery = await take(source)
        assert delivery.body == body
        assert await source.ack(delivery)


async def test_a_rejected_delivery_comes_back_and_is_counted(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"bad")
    async with broker.source(place.queue, prefetch=1) as source:
        for returned in range(3):
            delivery = await take(source)
            assert delivery.returned == returned
            assert await source.reject(delivery)
        assert await source.ack(await take(source))


async def test_what_is_handed_back_goes_to_another(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"x")
    async with broker.source(place.queue, prefetch=1) as one:
        delivery = await take(one)
        async with (
            place.connect() as other_broker,
            other_broker.source(place.queue, prefetch=1) as other,
            trio.open_nursery() as nursery,
        ):
            # The broker may give it to `one` again, which hands it back again: it must get to `other` some time.
            nursery.start_soon(hand_back_for_ever, one, delivery)
            again = await take(other)
            assert again.body == b"x"
            assert await other.ack(again)
            nursery.cancel_scope.cancel()


async def hand_back_for_ever(source: Source, delivery: Delivery) -> None:
    while True:
        await source.hand_back(delivery)
        delivery = await source.receive()


async def test_prefetch_bounds_what_is_without_verdict(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, *[b"%d" % n for n in range(5)])
    async with broker.source(place.queue, prefetch=2) as source:
        first, _second = await take(source), await take(source)
        assert await nothing_comes(source)
        assert await source.ack(first)
        assert (await take(source)).body == b"2"
        assert await nothing_comes(source)


async def test_prefetch_leaves_the_rest_to_others(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, *[b"%d" % n for n in range(4)])
    async with (
        place.connect() as other_broker,
        broker.source(place.queue, prefetch=2) as one,
        other_broker.source(place.queue, prefetch=2) as other,
    ):
        bodies = [(await take(source)).body for source in (one, other, one, other)]
        assert sorted(bodies) == [b"0", b"1", b"2", b"3"]


async def test_a_cancelled_receive_loses_nothing(broker: Broker, place: Place) -> None:
    count = 30
    got: set[bytes] = set()
    async with broker.source(place.queue, prefetch=count) as source, trio.open_nursery() as nursery:
        nursery.start_soon(put, broker, place.queue, *[b"%d" % n for n in range(count)])
        with trio.fail_after(PATIENCE):
            while len(got) < count:
                with trio.move_on_after(0.002):
                    delivery = await source.receive()
                    got.add(delivery.body)


async def test_leaving_gives_back_what_has_no_verdict(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, *[b"%d" % n for n in range(3)])
    async with broker.source(place.queue, prefetch=3) as source:
        left = await take(source)
    assert not await source.ack(left)
    async with broker.source(place.queue, prefetch=3) as source:
        assert {(await take(source)).body for _ in range(3)} == {b"0", b"1", b"2"}


async def test_a_stopped_source_takes_nothing_more_but_gives_its_verdicts(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"a", b"b", b"c")
    async with place.connect() as other_broker, broker.source(place.queue, prefetch=3) as source:
        held = await take(source)
        await source.stop()
        await source.stop()
        assert await nothing_comes(source)
        async with other_broker.source(place.queue, prefetch=3) as other:
            assert {(await take(other)).body for _ in range(2)} == {b"b", b"c"}
            assert await source.ack(held)
            assert await nothing_comes(other)


CONSUMER = """
import sys, trio
from ewms.pilot.brokers import open_broker
from ewms.secret import Secret

async def main(broker_type, address, queue):
    async with open_broker(broker_type, address, Secret(sys.stdin.readline().strip())) as broker:
        async with broker.source(queue, prefetch=2) as source:
            print((await source.receive()).body.decode(), flush=True)
            await trio.sleep(600)

trio.run(main, *sys.argv[1:])
"""


async def test_what_a_killed_consumer_held_goes_to_others(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"a", b"b")
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", CONSUMER, place.broker_type, place.address, place.queue],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with process.stdin, process.stdout:
            await process.stdin.send_all(place.token.reveal().encode() + b"\n")
            with trio.fail_after(PATIENCE):
                assert (await process.stdout.receive_some()).strip() == b"a"
            async with broker.source(place.queue, prefetch=2) as source:
                process.kill()
                await process.wait()
                deliveries = [await take(source), await take(source)]
                assert {delivery.body for delivery in deliveries} == {b"a", b"b"}
                assert all([await source.ack(delivery) for delivery in deliveries])
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()


async def test_many_publish_at_once_and_each_is_confirmed(broker: Broker, place: Place) -> None:
    count = 50
    async with broker.sink(place.queue) as sink, trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(publish_one, sink, number)
    async with broker.source(place.queue, prefetch=count) as source:
        assert {(await take(source)).body for _ in range(count)} == {b"%d" % n for n in range(count)}


async def publish_one(sink, number: int) -> None:  # type: ignore[no-untyped-def]
    await sink.publish(b"%d" % number, message_id=f"m-{number}")


async def test_a_second_verdict_is_none(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"x")
    async with broker.source(place.queue, prefetch=1) as source:
        delivery = await take(source)
        assert await source.ack(delivery)
        assert not await source.ack(delivery)
        assert not await source.reject(delivery)
        assert not await source.hand_back(delivery)
        assert await nothing_comes(source)


async def test_a_delivery_is_held_until_its_verdict(broker: Broker, place: Place) -> None:
    await put(broker, place.queue, b"x", b"y")
    async with broker.source(place.queue, prefetch=2) as source:
        one, other = await take(source), await take(source)
        assert source.holds(one)
        assert await source.ack(one)
        assert (source.holds(one), source.holds(other)) == (False, True)
        assert not source.holds(Delivery(body=b"", queue=place.queue))
    assert not source.holds(other)


async def test_several_queues_on_one_connection(broker: Broker, place: Place) -> None:
    other = place.queue + "-other"
    await put(broker, place.queue, b"one")
    await put(broker, other, b"other")
    async with broker.source(place.queue, prefetch=1) as source, broker.source(other, prefetch=1) as other_source:
        assert (await take(other_source)).body == b"other"
        assert (await take(source)).body == b"one"
        await other_source.reject(Delivery(body=b"", queue=other))  # never seen: no verdict, no harm


async def test_a_source_that_was_stopped_takes_nothing_more_and_still_gives_verdicts(
    broker: Broker, place: Place
) -> None:
    await put(broker, place.queue, b"one", b"two", b"three")
    async with broker.source(place.queue, prefetch=3) as source, broker.source(place.queue, prefetch=3) as other:
        first = await take(source)
        await source.stop()
        rest = {(await take(other)).body, (await take(other)).body}
        assert rest == {b"one", b"two", b"three"} - {first.body}
        assert await source.ack(first)
        assert await nothing_comes(source)


async def test_whatever_is_cancelled_wherever_all_goes_on(broker: Broker, place: Place) -> None:
    """Each call is cancelled at each of its awaits: nothing is lost, and the adapter is as good as new."""
    count = 25
    published: set[bytes] = set()
    async with broker.sink(place.queue) as sink:
        for number in range(count):
            with trio.CancelScope() as scope, trio.move_on_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, number, scope)
                    await sink.publish(b"%d" % number, message_id=f"m-{number}")
                    published.add(b"%d" % number)
                    nursery.cancel_scope.cancel()
        await sink.publish(b"last", message_id="last")
    async with broker.source(place.queue, prefetch=3) as source:
        acked: set[bytes] = set()
        steps = 0
        while not acked >= published | {b"last"}:
            delivery = await take(source)
            verdicts = (source.ack, source.reject, source.hand_back)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, steps % 7, scope)
                    if await verdicts[steps % 3](delivery) and steps % 3 == 0:
                        acked.add(delivery.body)
                    nursery.cancel_scope.cancel()
            steps += 1
            # An ack that was cancelled may have been given or not.
            if scope.cancelled_caught:
                acked.add(delivery.body)
    async with broker.source(place.queue, prefetch=1) as source, broker.sink(place.queue) as sink:
        await sink.publish(b"and on", message_id="on")
        while (delivery := await take(source)).body != b"and on":
            assert await source.ack(delivery)
        assert await source.ack(delivery)


async def cancel_after(checkpoints: int, scope: trio.CancelScope) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()
