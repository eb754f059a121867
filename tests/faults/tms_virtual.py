"""A whole TMS in virtual time: the WMS stand-in behind a network in memory, a schedd in memory, hours in seconds."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import attrs
import httpx
import trio
from tms_bench import SCHEDD, Bench

from ewms.liveness import Pulse
from ewms.secret import Secret
from ewms.testing.fakeschedd import FakeSchedd
from ewms.testing.wms import Standin
from ewms.testing.wms.app import REALM_PATH, make_app
from ewms.testing.wms.faults import Faults
from ewms.testing.wms.state import Queues, State
from ewms.testing.wms.store import Store
from ewms.testing.wms.tokens import TokenIssuer
from ewms.tms.board import Board
from ewms.tms.condor.base import Schedd
from ewms.tms.context import Context
from ewms.tms.ledger import Ledger
from ewms.tms.outbox import Outbox
from ewms.tms.service import serve
from ewms.tms.settings import Settings
from ewms.wms.auth import Auth
from ewms.wms.client import open_wms

ADDRESS: Final = "http://wms.example.org"


@attrs.frozen
class Call:
    """One request that reached the network."""

    at: float
    method: str
    path: str
    body: bytes


@attrs.define
class Network(httpx.AsyncBaseTransport):
    """Between the TMS and the stand-in: what matches `down` meets nobody, what matches `silent` gets no answer.

    What matches `late` gets none either, and is acted upon `late_by` s after it was sent. Of each two calls that match
    `halved` the first meets a gateway that gives the WMS up. What matches `refused`, with one of `bad` in its body, is
    answered with `refusal`.
    """

    app: httpx.ASGITransport
    down: str = ""
    silent: str = ""
    late: str = ""
    late_by: float = 0.0
    halved: str = ""
    refused: str = ""
    bad: tuple[bytes, ...] = (b"",)
    refusal: tuple[int, str] = (400, '{"code": 400, "error": "not like this"}')
    calls: list[Call] = attrs.field(factory=list)
    background: trio.Nursery = attrs.field(init=False)
    """For what outlives its caller."""
    _gave_up: bool = attrs.field(default=False, init=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(Call(trio.current_time(), request.method, path, request.content))
        if fnmatchcase(path, self.down):
            raise httpx.ConnectError("connection refused")
        if fnmatchcase(path, self.silent):
            await trio.sleep_forever()
        if fnmatchcase(path, self.late):
            self.background.start_soon(self._act_later, request)
            await trio.sleep_forever()
        if fnmatchcase(path, self.halved):
            self._gave_up = not self._gave_up
            if self._gave_up:
                return httpx.Response(504)
        if fnmatchcase(path, self.refused) and any(bad in request.content for bad in self.bad):
            status, text = self.refusal
            return httpx.Response(status, text=text)
        return await self.app.handle_async_request(request)

    async def _act_later(self, request: httpx.Request) -> None:
        await trio.sleep(self.late_by)
        await self.app.handle_async_request(request)

    def since(self, moment: float, pattern: str) -> list[Call]:
        """The calls from then on whose path matches."""
        return [call for call in self.calls if call.at >= moment and fnmatchcase(call.path, pattern)]


@attrs.frozen
class World:
    """What a test has: the bench's words for orders and stops, the network, and the running TMS."""

    bench: Bench
    network: Network
    ctx: Context

    async def until(self, condition: Callable[[], bool], within: float = 300) -> float:
        """Wait, at most so many virtual s; how long it took."""
        started = trio.current_time()
        with trio.fail_after(within):
            while not condition():  # noqa: ASYNC110  nothing tells of a change at the stand-in
                await trio.sleep(0.5)
        return trio.current_time() - started


async def never_stuck(pulse: Pulse) -> NoReturn:
    """Whatever a TMS waits for, the watchdog is fed."""
    while True:
        assert not pulse.stuck()
        await trio.sleep(5)


@asynccontextmanager
async def open_world(
    directory: Path,
    *,
    before: Callable[[World], None] = lambda _: None,
    schedd: Schedd | None = None,
    may_be_stuck: bool = False,
    **settings: Any,
) -> AsyncIterator[World]:
    """A TMS that runs with an operator's default pace; leaving is what a signal does.

    `before` prepares the world before the TMS starts; `schedd` is asked in place of the bench's own.
    """
    faults = Faults()
    issuer = TokenIssuer("tms", Secret("a-secret-for-tests"), 300)

    async def launch(_workflow: str) -> None:
        await trio.lowlevel.checkpoint()

    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(Store(None)))
        state = State(store, {"here": (SCHEDD,)}, Queues("rabbitmq", "localhost", Secret("")), 100)
        app = make_app(state, faults, issuer, launch, needs_token=True)
        network = Network(httpx.ASGITransport(app=cast("Any", app)))
        auth = Auth(ADDRESS + REALM_PATH, issuer.client_id, issuer.client_secret)
        wms = await stack.enter_async_context(open_wms(ADDRESS, auth, transport=network))
        mine = Settings(wms_address=ADDRESS, no_auth=True, job_dir=directory, **settings)
        bench = Bench(cast("Standin", _Bare(state)), FakeSchedd(), mine)
        ledger = Ledger(mine.state_dir / "ledger")
        ctx = Context(mine, SCHEDD, wms, schedd or bench.schedd, ledger, Outbox(wms, ledger), Board())
        world = World(bench, network, ctx)
        before(world)
        async with trio.open_nursery() as nursery:
            network.background = nursery
            await nursery.start(serve, ctx)
            if not may_be_stuck:
                nursery.start_soon(never_stuck, ctx.pulse)
            yield world
            nursery.cancel_scope.cancel()


@attrs.frozen
class _Bare:
    """What `Bench` uses of a stand-in."""

    state: State
