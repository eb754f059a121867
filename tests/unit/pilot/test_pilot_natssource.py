"""Pulling from NATS by the clock: how much is asked for, when again, and when a sign of life is due."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

pytest.importorskip("nats")
pytest.importorskip("trio_asyncio", exc_type=ImportError)

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import Link, WireLost
from ewms.pilot.brokers.natssource import NatsSource
from ewms.pilot.brokers.natswire import Consumer, Inbox, Incoming, NatsWire, NobodyThere, Status

ACK_WAIT = 30.0
OnMessage = Callable[[Incoming | Status], None]


async def nothing(*_: object) -> None:
    """A hook that does nothing."""


@attrs.define
class FakeWire:
    """A server that notes what is asked of it; what it delivers the test decides."""

    pulls: list[float] = attrs.field(factory=list)
    signs: list[tuple[float, str]] = attrs.field(factory=list)
    verdicts: list[tuple[str, bytes]] = attrs.field(factory=list)
    on_ask: Callable[[str, bytes], Awaitable[object]] = nothing
    consumer_found: Consumer = attrs.field(default=Consumer(ack_wait=ACK_WAIT, max_ack_pending=-1, is_push=False))
    inboxes: list[OnMessage] = attrs.field(factory=list)
    closed: trio.Event = attrs.field(factory=trio.Event)
    on_open_inbox: Callable[[], Awaitable[object]] = nothing
    on_close_inbox: Callable[[], Awaitable[object]] = nothing
    _open: list[trio.CancelScope] = attrs.field(factory=list)

    async def stream_exists(self, name: str) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def consumer(self, stream: str, name: str) -> Consumer:
        await trio.lowlevel.checkpoint()
        return self.consumer_found

    async def open_inbox(self, on_message: OnMessage) -> Inbox:
        await trio.lowlevel.checkpoint()
        await self.on_open_inbox()
        self.inboxes.append(on_message)
        return Inbox(f"inbox-{len(self.inboxes)}", self._close_inbox)

    async def _close_inbox(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.on_close_inbox()

    async def send(self, subject: str, body: bytes = b"", *, reply: str = "") -> None:
        await trio.lowlevel.checkpoint()
        assert json.loads(body) == {"batch": 1, "expires": 30_000_000_000}
        self.pulls.append(trio.current_time())

    async def ask(self, subject: str, body: bytes, *, within: float) -> None:
        await trio.lowlevel.checkpoint()
        await self.on_ask(subject, body)
        if body == b"+WPI":
            self.signs.append((trio.current_time(), subject))
        else:
            self.verdicts.append((subject, body))

    @contextmanager
    def while_open(self) -> Iterator[None]:
        with trio.CancelScope() as scope:
            self._open.append(scope)
            yield
        if scope.cancelled_caught:
            raise WireLost("gone")

    def lose(self) -> None:
        self.closed.set()
        for scope in self._open:
            scope.cancel()

    def deliver(self, name: str, *, delivered: int = 1) -> None:
        self.inboxes[-1](Incoming(name.encode(), {}, f"$JS.ACK.{name}", f"s:{name}", delivered))

    def say(self, code: str) -> None:
        self.inboxes[-1](Status(code, "because"))


@attrs.define
class Server:
    wires: list[FakeWire] = attrs.field(factory=lambda: [FakeWire()])
    """One for each connection."""
    used: int = 0

    @property
    def wire(self) -> FakeWire:
        return self.wires[self.used - 1]

    async def connect(self) -> NatsWire:
        await trio.lowlevel.checkpoint()
        self.used += 1
        return cast("NatsWire", _WithLost(self.wires[self.used - 1]))


class _WithLost:
    """The part of a wire that the link needs."""

    def __init__(self, wire: FakeWire) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> object:
        return getattr(self._wire, name)

    async def lost(self) -> None:
        await self._wire.closed.wait()


@asynccontextmanager
async def consuming(server: Server, prefetch: int) -> AsyncIterator[NatsSource]:
    async with trio.open_nursery() as nursery:
        link = Link("nats", server.connect, 600, nursery)
        nursery.start_soon(link.keep)
        source = NatsSource(link, "q", prefetch)
        scope = trio.CancelScope()
        nursery.start_soon(source.keep, scope)
        await source.opened()
        await wait_all_tasks_blocked()
        yield source
        nursery.cancel_scope.cancel()


async def test_each_free_place_is_one_request(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=3) as source:
        assert len(server.wire.pulls) == 3
        for name in "abc":
            server.wire.deliver(name)
        held = [await source.receive() for _ in range(3)]
        await wait_all_tasks_blocked()
        assert len(server.wire.pulls) == 3, "no place is free"
        assert await source.ack(held[1])
        await wait_all_tasks_blocked()
        assert len(server.wire.pulls) == 4


async def test_what_waits_to_be_received_takes_a_place(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=1):
        server.wire.deliver("a")
        await trio.sleep(200)
        assert len(server.wire.pulls) == 1


async def test_an_expired_request_is_made_again_at_once(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=1):
        server.wire.say("408")
        await wait_all_tasks_blocked()
        assert server.wire.pulls == [server.wire.pulls[0]] * 2


async def test_a_heartbeat_ends_no_request(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=1):
        server.wire.say("100")
        await wait_all_tasks_blocked()
        assert len(server.wire.pulls) == 1


async def test_a_request_that_the_server_forgot_is_made_again(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=1):
        await trio.sleep(100)
        began = server.wire.pulls[0]
        assert [at - began for at in server.wire.pulls] == [0, 35, 70]


async def test_signs_of_life_come_three_times_in_the_servers_patience(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=2) as source:
        server.wire.deliver("given out")
        server.wire.deliver("not yet")
        began = trio.current_time()
        delivery = await source.receive()
        await trio.sleep(35)
        assert {subject for _, subject in server.wire.signs} == {"$JS.ACK.given out", "$JS.ACK.not yet"}
        assert [at - began for at, subject in server.wire.signs if "given" in subject] == [10, 20, 30]
        assert await source.ack(delivery)


async def test_without_an_answer_it_is_not_ours_for_ever(autojump_clock: MockClock) -> None:
    async def no_answer(_subject: str, body: bytes) -> None:
        if body == b"+WPI":
            await trio.sleep(5)
            raise WireLost("no answer")

    server = Server([FakeWire(on_ask=no_answer)])
    async with consuming(server, prefetch=2) as source:
        server.wire.deliver("a")
        server.wire.deliver("b")
        first = await source.receive()
        await trio.sleep(31)
        assert not await source.reject(first)
        assert server.wire.verdicts == [], "a rejection would disturb whoever has it now"
        with trio.move_on_after(1) as scope:
            await source.receive()
        assert scope.cancelled_caught, "what was taken back is not given out"


async def test_a_late_ack_is_sent_all_the_same(autojump_clock: MockClock) -> None:
    async def no_sign(_subject: str, body: bytes) -> None:
        if body == b"+WPI":
            raise WireLost("no answer")

    server = Server([FakeWire(on_ask=no_sign)])
    async with consuming(server, prefetch=1) as source:
        server.wire.deliver("a")
        delivery = await source.receive()
        await trio.sleep(31)
        assert not await source.ack(delivery)
        assert server.wire.verdicts == [("$JS.ACK.a", b"+ACK")]


async def test_a_verdict_waits_for_the_next_connection(autojump_clock: MockClock) -> None:
    server = Server([FakeWire(), FakeWire()])
    async with consuming(server, prefetch=1) as source:
        old = server.wire
        server.wire.deliver("a")
        delivery = await source.receive()
        await trio.sleep(15)
        old.lose()
        assert await source.ack(delivery)
        assert (old.verdicts, server.wires[1].verdicts) == ([], [("$JS.ACK.a", b"+ACK")])


async def test_after_a_reconnection_the_first_thing_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    server = Server([FakeWire(), FakeWire()])
    async with consuming(server, prefetch=2) as source:
        server.wire.deliver("a")
        await source.receive()
        await trio.sleep(19)
        server.wire.lose()
        await trio.sleep(3)
        assert [subject for _, subject in server.wires[1].signs] == ["$JS.ACK.a"]
        assert len(server.wires[1].pulls) == 1


@pytest.mark.parametrize("code", ["409", "503"])
async def test_trouble_leads_to_a_new_inbox_after_a_while(autojump_clock: MockClock, code: str) -> None:
    server = Server()
    async with consuming(server, prefetch=1) as source:
        server.wire.say(code)
        began = trio.current_time()
        await trio.sleep(1)
        assert len(server.wire.inboxes) == 2
        assert 0.1 <= server.wire.pulls[-1] - began <= 0.2
        server.wire.deliver("a")
        assert (await source.receive()).body == b"a"


async def test_lasting_trouble_is_asked_about_less_and_less(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=1):
        for _ in range(12):
            server.wire.say("409")
            count = len(server.wire.pulls)
            while len(server.wire.pulls) == count:  # noqa: ASYNC110  the virtual clock is to move
                await trio.sleep(0.1)
        assert server.wire.pulls[-1] - server.wire.pulls[-2] > 2


async def test_a_verdict_that_nobody_takes_is_no_error(autojump_clock: MockClock) -> None:
    async def gone(_subject: str, _body: bytes) -> None:
        raise NobodyThere("no such consumer")

    server = Server([FakeWire(on_ask=gone)])
    async with consuming(server, prefetch=1) as source:
        server.wire.deliver("a")
        assert not await source.ack(await source.receive())


async def test_what_comes_while_it_stops_is_handed_back(autojump_clock: MockClock) -> None:
    server = Server()
    async with consuming(server, prefetch=2) as source:

        async def on_its_way() -> None:
            server.wire.deliver("late")

        server.wire.on_close_inbox = on_its_way
        server.wire.deliver("held")
        held = await source.receive()
        await source.stop()
        assert server.wire.verdicts == [("$JS.ACK.late", b"-NAK")]
        count = len(server.wire.pulls)
        await trio.sleep(100)
        assert len(server.wire.pulls) == count
        assert await source.ack(held)


async def test_who_stops_while_it_begins_again_asks_for_nothing(autojump_clock: MockClock) -> None:
    """Else it would keep an event from other pilots for as long as the last tasks run."""
    asked, answered = trio.Event(), trio.Event()

    async def answer_late() -> None:
        asked.set()
        await answered.wait()

    server = Server([FakeWire(), FakeWire(on_open_inbox=answer_late)])
    async with consuming(server, prefetch=1) as source:
        server.wire.lose()
        await asked.wait()
        await source.stop()
        answered.set()
        await trio.sleep(100)
        assert len(server.wire.inboxes) == 1
        assert server.wire.pulls == []


async def test_a_message_that_comes_again_is_known_though_the_server_forgot_that_it_delivered_it(
    autojump_clock: MockClock,
) -> None:
    server = Server()
    async with consuming(server, prefetch=3) as source:
        server.wire.deliver("a")
        first = await source.receive()
        server.wire.deliver("a")
        server.wire.deliver("b")
        again, other = await source.receive(), await source.receive()
        assert [each.returned for each in (first, again, other)] == [0, 1, 0]


async def test_a_queue_that_cannot_be_is_told(autojump_clock: MockClock) -> None:
    server = Server([FakeWire(consumer_found=Consumer(ack_wait=ACK_WAIT, max_ack_pending=-1, is_push=True))])
    with pytest.RaisesGroup(BrokerRefused):
        async with consuming(server, prefetch=1):
            pass
