"""Hears of every step of one lane's TMS, its helpers and its WMS, and does there what the case's plan says."""

import os
import select
import signal
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing.wms import Request
from tests.sweep.cases import KILLS, Act, Seen, Trigger
from tests.sweep.steps import Point, is_poll, local_step, wms_call
from tests.sweep.truth import Call

_LONGEST_HOLD: Final = 15.0
"""s for which a helper whose TMS was killed is held until a new TMS has come to the lock."""
_QUIET: Final = 0.7
"""s without a step after which nothing more is expected."""
_POLLS: Final = frozenset({"wms:GET:pending-starter", "wms:GET:pending-stopper", "wms:POST:query"})
_ENDS: Final[Mapping[Act, set[int]]] = {
    Act.TMS: {-signal.SIGKILL},
    Act.BOTH: {-signal.SIGKILL},
    Act.TERM: {0, -signal.SIGTERM},  # the latter before it handles signals
}
_BEFORE_LOCK: Final = frozenset({"tms:started", "disk:mkdir:.tms", "disk:open:.tms/lock", "disk:flock:.tms/lock"})


@attrs.frozen(eq=False)
class Process:
    """A TMS or a helper that has said that it lives."""

    pid: int
    is_tms: bool
    generation: int
    """Of which TMS, counted from 1."""
    pidfd: int

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self.pidfd], [], [], 0)[0]

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.is_alive():
            signal.pidfd_send_signal(self.pidfd, number)


@attrs.define
class Story:
    """One case on its way."""

    uuid: str
    plan: Sequence[Trigger]
    do_as_user: Callable[[Act], None]
    remove: Callable[[], Awaitable[None]]
    is_confirmed: Callable[[], bool]
    fired: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)
    seen: list[Seen] = attrs.field(factory=list)
    """Since the last trigger."""
    calls: list[Call] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)
    kills: int = 0
    """How often processes were killed with SIGKILL."""
    ends: set[int] = attrs.field(factory=set)
    """Exit statuses with which a TMS may end by now."""
    is_over: bool = False
    """Nothing belongs to it any more."""
    diary: list[str] = attrs.field(factory=list)

    @property
    def is_played(self) -> bool:
        """Whether all of the plan has happened."""
        return self.fired == len(self.plan)


class Control:
    """Implements the stand-in's `Observer`, and the gate at which processes ask whether they may go on."""

    _later: trio.Nursery

    def __init__(self) -> None:
        self.story: Story | None = None
        self._processes: list[Process] = []
        self._generation = 0
        self._moved_at = 0.0
        self._polled: set[str] = set()
        self._at_lock = 0  # the newest TMS that has come to it

    def begin(self, story: Story) -> None:
        """From now on steps belong to this case."""
        for process in self._processes:
            os.close(process.pidfd)
        self._processes.clear()
        self._generation = 0
        self._moved_at = trio.current_time()
        self._polled.clear()
        self._at_lock = 0
        self.story = story

    def is_settled(self) -> bool:
        """The TMS has asked for everything since it started, and nothing has happened for a while."""
        return self._polled == _POLLS and trio.current_time() - self._moved_at > _QUIET

    @property
    def n_processes(self) -> int:
        """How many have asked in this case."""
        return len(self._processes)

    # --- the processes ---

    @asynccontextmanager
    async def gate(self, path: Path) -> AsyncIterator[None]:
        """Listen at a Unix socket; when this is left, every process that asked there dies."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.bind(str(path))
            path.chmod(0o777)  # noqa: ASYNC240  once
            raw.listen(100)
            raw.setblocking(False)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(raw))
            async with trio.open_nursery() as nursery:
                self._later = nursery
                nursery.start_soon(trio.serve_listeners, self._serve, [listener])  # noqa: ASYNC113  it listens already
                yield
                nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                said = (await stream.receive_some(4096)).decode().strip()
                pid, _, _ = struct.unpack("iII", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                process = self._started(pid, said) if said.endswith(":started") else self._known(pid)
                if process is None:
                    return
                await self._from_process(process, said)
                await stream.send_all(b".")
                await stream.receive_some(1)  # its end, or ours: a process holds its first connection open
        except trio.BrokenResourceError:
            pass  # it was killed

    def _started(self, pid: int, said: str) -> Process | None:
        is_tms = said == "tms:started"
        if is_tms:
            self._generation += 1
            self._polled.clear()
        try:
            process = Process(pid, is_tms, self._generation, os.pidfd_open(pid))
        except ProcessLookupError:
            return None  # killed meanwhile
        self._processes.append(process)
        return process

    def _known(self, pid: int) -> Process | None:
        return next((each for each in self._processes if each.pid == pid and each.is_alive()), None)

    async def _from_process(self, process: Process, said: str) -> None:
        if self.story is None:
            return
        if said == "disk:flock:.tms/lock":
            self._at_lock = process.generation
        if process.is_tms and said not in _BEFORE_LOCK:
            await self._check_alone(process, said)
        step = local_step(said, self.story.uuid)
        if step is not None:
            await self._reach(step, of_helper=not process.is_tms)

    async def _check_alone(self, process: Process, said: str) -> None:
        for _ in range(10):  # the lock is free a moment before the process that held it has ended
            stale = [each for each in self._processes if each.generation < process.generation and each.is_alive()]
            if not stale:
                return
            await trio.sleep(0.02)
        self._complain(f"a new TMS works ({said}) while processes of an earlier one live")

    # --- the WMS ---

    async def arrived(self, request: Request) -> None:
        """See `ewms.testing.wms.Observer`."""
        if self.story is None or is_poll(request):
            return
        name = wms_call(request, self.story.uuid)
        if name is not None:
            await self._reach(f"{name}:arrived")

    async def acted(self, request: Request, status: int, answer: bytes) -> bool:
        """See `ewms.testing.wms.Observer`."""
        if self.story is None:
            return True
        name = wms_call(request, self.story.uuid)
        if name is None:
            return True
        self._polled |= {name} & _POLLS
        if is_poll(request) and self.story.uuid not in answer.decode():
            return True
        if self.story.uuid in request.path + str(request.body):
            self.story.calls.append(Call(name.removeprefix("wms:"), status))
        return await self._reach(f"{name}:acted", note=f" {status}")

    # --- what happens at a step ---

    async def _reach(self, step: str, *, of_helper: bool = False, note: str = "") -> bool:
        """A step is reached; False when an answer is to be lost."""
        assert self.story is not None
        story = self.story
        self._moved_at = trio.current_time()
        if story.is_over:
            return True
        story.counts[step] += 1
        point = Point(step, story.counts[step])
        story.diary.append(f"{trio.current_time():.3f} {point}{note}")
        if not story.is_played and story.plan[story.fired].point == point:
            trigger = story.plan[story.fired]
            story.fired += 1
            story.counts.clear()
            story.seen.clear()
            story.diary.append(f"{trio.current_time():.3f}     {trigger.name}")
            if trigger.delay_ms:
                self._later.start_soon(self._do_later, story, trigger)
                return True
            return await self._do(story, trigger.act, of_helper=of_helper)
        helpers = any(not each.is_tms and each.is_alive() for each in self._processes)
        story.seen.append(Seen(point, helpers, is_start=not story.is_confirmed()))
        return True

    async def _do_later(self, story: Story, trigger: Trigger) -> None:
        await trio.sleep(trigger.delay_ms / 1000)
        await self._do(story, trigger.act, of_helper=False)

    async def _do(self, story: Story, act: Act, *, of_helper: bool) -> bool:
        match act:
            case Act.TMS | Act.HELPER | Act.BOTH | Act.TERM:
                self._end(story, act)
                if act is Act.TMS and of_helper:
                    await self._hold()
            case Act.ANSWER:
                return False
            case Act.REMOVE:
                await story.remove()
            case Act.ABORT | Act.FINISH:
                story.do_as_user(act)
        return True

    def _end(self, story: Story, act: Act) -> None:
        living = [each for each in self._processes if each.is_alive()]
        victims = [each for each in living if act is Act.BOTH or each.is_tms == (act is not Act.HELPER)]
        for victim in victims:
            victim.send(signal.SIGTERM if act is Act.TERM else signal.SIGKILL)
        if act.ends_tms:
            self._polled.clear()  # the next one has to ask for everything again
        story.kills += act in KILLS
        story.ends |= _ENDS.get(act, set())
        if not victims:
            self._complain(f"there was nothing to kill ({act.value})")

    async def _hold(self) -> None:
        """Until a new TMS has come to the lock, which this helper still holds."""
        killed = self._generation
        with trio.move_on_after(_LONGEST_HOLD):
            while self._at_lock <= killed:  # noqa: ASYNC110  one case has many waiters, and none for long
                await trio.sleep(0.05)
            await trio.sleep(1.5)  # time to do harm, if it could

    def _complain(self, problem: str) -> None:
        assert self.story is not None
        self.story.problems.append(problem)
