"""The schedd calls of the TMS, over helper processes that can be killed.

A call to a schedd can hang for 20 s and more with the interpreter locked. So the calls are made in helper processes,
reads (query, history, parse, param) in one, submits and acts in another: a query that hangs delays no stop order.
A helper is started when it is first needed, does one call at a time, and is killed when a call is cancelled or
overdue, or when it has answered many; the next call starts a new one. Killing the helper does not undo the call: a
submit or act that was under way may or may not have happened at the schedd, so whoever asked has to look before asking
again. A killed helper that is not gone (it hangs in the kernel) might still have a call under way: until it is gone
nothing is asked in its place.
"""

import errno
import itertools
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
import structlog
import trio

from ewms.liveness import beat_here, resting
from ewms.tms.condor.base import (
    Acted,
    Action,
    Ad,
    CondorBroken,
    CondorError,
    CondorRefused,
    CondorUnreachable,
    Schedd,
    Submitted,
    SubmitValue,
    Value,
)
from ewms.tms.condor.wire import Reply, Request, WireError, decode_reply, encode_request

log = structlog.stdlib.get_logger(__name__)

DEFAULT_HELPER: Final = (sys.executable, "-m", "ewms.tms.condor.helper")
CLOSE_GRACE: Final = 5.0
"""How long, in s, an idle helper may take to end by itself when its standard input is closed."""
REAP_TIMEOUT: Final = 10.0
"""How long, in s, a killed helper may take to be gone (only one in an uninterruptible kernel call takes long)."""

CALLS_PER_HELPER: Final = 10_000
"""After so many answers a helper is replaced: HTCondor's bindings lose some 0.1 kB of memory with each query."""

_LAST_LINES: Final = 40
"""Of a helper's standard error, kept for when it fails."""
_ENDED: Final = "ended"
_HARMLESS_ENDS: Final = frozenset({0, -signal.SIGKILL, -signal.SIGTERM})
"""Exit statuses of a helper that nothing is wrong with: whoever killed it did that to it."""
_NO_PROGRAM: Final = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC})

Observe = Callable[[str, type[CondorError] | None, float], None]
"""Watches the calls: which, what it ended with (None: an answer), how long it took its caller, in s."""


def _nobody(_call: str, _fault: type[CondorError] | None, _seconds: float) -> None:
    pass


@asynccontextmanager
async def open_schedd(
    command: Sequence[str] = DEFAULT_HELPER,
    *,
    call_timeout: float = 60,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    observe: Observe = _nobody,
) -> AsyncIterator[Schedd]:
    """The schedd behind helper processes that run `command`; none is left when the context is.

    `call_timeout` is the deadline in s of each call, counted from its turn. `pass_fds` are inherited by the helpers
    (the TMS's lock: a helper may outlive a killed TMS, and still be submitting). `env` is the helpers' environment,
    None for our own. `observe` is told of every call.
    """
    start = _Start(tuple(command), tuple(pass_fds), env)
    reads, writes = _Lane("reads", start, call_timeout, observe), _Lane("submits", start, call_timeout, observe)
    try:
        yield HelperSchedd(reads, writes)
    finally:
        with trio.CancelScope(shield=True):  # each close is bounded by CLOSE_GRACE and REAP_TIMEOUT
            for lane in (reads, writes):
                await lane.close()


class HelperSchedd:
    """`base.Schedd` over two helper processes."""

    def __init__(self, reads: "_Lane", writes: "_Lane") -> None:
        self._reads = reads
        self._writes = writes

    async def submit(self, description: Mapping[str, SubmitValue], *, count: int) -> Submitted:
        """See `base.Schedd`."""
        value = await self._writes.call("submit", description=dict(description), count=count)
        return Submitted(value["cluster_id"], value["n_procs"])

    async def query(self, constraint: str, projection: Sequence[str], *, cluster_ads: bool = False) -> list[Ad]:
        """See `base.Schedd`."""
        self._writes.check_gone()  # what is not in the queue now may still come
        ads: list[Ad] = await self._reads.call(
            "query", constraint=constraint, projection=list(projection), cluster_ads=cluster_ads
        )
        return ads

    async def history(
        self,
        constraint: str,
        projection: Sequence[str],
        *,
        match: int | None = None,
        since: str | None = None,
    ) -> list[Ad]:
        """See `base.Schedd`."""
        ads: list[Ad] = await self._reads.call(
            "history", constraint=constraint, projection=list(projection), match=match, since=since
        )
        return ads

    async def act(self, action: Action, constraint: str, *, reason: str) -> Acted:
        """See `base.Schedd`."""
        value = await self._writes.call("act", action=action, constraint=constraint, reason=reason)
        return Acted(value["succeeded"], value["failed"])

    async def parse(self, expression: str) -> str:
        """See `base.Schedd`."""
        text: str = await self._reads.call("parse", expression=expression)
        return text

    async def evaluate(self, expression: str) -> Value:
        """See `base.Schedd`."""
        value: Value = await self._reads.call("evaluate", expression=expression)
        return value

    async def param(self, name: str) -> str | None:
        """See `base.Schedd`."""
        value: str | None = await self._reads.call("param", name=name)
        return value


class _Lane:
    """One helper at a time, one call at a time."""

    def __init__(self, name: str, start: "_Start", call_timeout: float, observe: Observe) -> None:
        self._name = name
        self._start = start
        self._call_timeout = call_timeout
        self._observe = observe
        self._turn = trio.Lock()
        self._helper: _Helper | None = None
        self._undead: _Helper | None = None
        """Killed, and not gone."""
        self._told_trace = ""
        self._ids = itertools.count(1)

    async def call(self, call: str, **args: Any) -> Any:
        """Make one call; raise what `base.Schedd` says."""
        started = trio.current_time()
        with resting():  # the call before ours has its own deadline
            await self._turn.acquire()
        try:
            value = await self._call(call, args)
        except CondorError as error:
            self._observe(call, type(error), trio.current_time() - started)
            if isinstance(error, CondorBroken):
                self._tell(call, error)
            raise
        finally:
            self._turn.release()
            beat_here()
        self._observe(call, None, trio.current_time() - started)
        return value

    async def _call(self, call: str, args: Mapping[str, Any]) -> Any:
        with trio.move_on_after(self._call_timeout):
            return _value(await self._exchange(Request(next(self._ids), call, args)))
        raise CondorUnreachable(f"no answer to {call} within {self._call_timeout:g} s: the helper was killed")

    async def _exchange(self, request: Request) -> Reply:
        kept = False
        try:
            if self._helper is None:
                self.check_gone()
                self._helper = await self._start.helper(self._name)
            reply = await self._helper.exchange(request)
            # After "unreachable" a new helper: it has no stale session with a schedd that was restarted.
            is_well = reply.failure is None or reply.failure.kind == "refused"
            kept = is_well and self._helper.answers < CALLS_PER_HELPER
            return reply
        finally:
            if not kept and self._helper is not None:
                helper, self._helper = self._helper, None
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * REAP_TIMEOUT):
                    await helper.kill()
                if not helper.is_gone:
                    self._undead = helper

    def check_gone(self) -> None:
        """Raise `CondorUnreachable` while a call may be under way of a helper that was killed."""
        if self._undead is not None and not self._undead.is_gone:
            raise CondorUnreachable(
                f"an earlier helper (pid {self._undead.pid}) was killed and is not gone, and its last call may still"
                f" be under way: nothing is asked before its end (state D in ps: a disk or file system hangs)"
            )
        self._undead = None

    def _tell(self, call: str, error: CondorBroken) -> None:
        """Whoever asked goes on somehow: what is broken must be seen all the same (the same traceback once)."""
        more = {"traceback": error.trace} if error.trace != self._told_trace else {}
        self._told_trace = error.trace
        log.error("the schedd helper is broken", helper=self._name, call=call, error=str(error), **more)

    async def close(self) -> None:
        if self._helper is not None:
            helper, self._helper = self._helper, None
            await helper.close()


def _value(reply: Reply) -> Any:
    if reply.failure is None:
        return reply.value
    if reply.failure.kind == "bug":
        raise CondorBroken(reply.failure.message, reply.failure.trace)
    error: type[CondorError] = CondorRefused if reply.failure.kind == "refused" else CondorUnreachable
    raise error(reply.failure.message)


@attrs.frozen
class _Start:
    """How a helper is started."""

    command: tuple[str, ...]
    pass_fds: tuple[int, ...]
    env: Mapping[str, str] | None

    async def helper(self, name: str) -> "_Helper":
        try:
            process = await trio.lowlevel.open_process(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=self.pass_fds,
                env=self.env,
            )
        except OSError as error:
            fault = CondorBroken if error.errno in _NO_PROGRAM else CondorUnreachable
            raise fault(f"the schedd helper did not start: {error}") from error
        log.debug("schedd helper started", helper=name, pid=process.pid)
        return _Helper(name, process)


class _Helper:
    """One helper process: an exchange of lines, and its end."""

    def __init__(self, name: str, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._name = name
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.answers = 0

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        """It has ended; nothing that it was asked for is under way."""
        return self._process.returncode is not None

    async def exchange(self, request: Request) -> Reply:
        """Send a request and await its reply.

        Raises:
            CondorUnreachable: the helper ended in good order or was killed.
            CondorBroken: it failed by itself, or talks garbage.
        """
        results: list[Reply | str] = []

        async def talk() -> None:
            results.append(await self._talk(request))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain_stderr)  # a full pipe would block the helper
            nursery.start_soon(talk)
        (result,) = results
        if isinstance(result, Reply):
            self.answers += 1
            return result
        await self.kill()
        status = self._process.returncode
        words = f": {self._last_lines[-1]}" if self._last_lines else ""
        text = f"the schedd helper {result} (exit status {status}){words}"
        if result == _ENDED and (status is None or status in _HARMLESS_ENDS):
            raise CondorUnreachable(text)
        raise CondorBroken(text, "\n".join(self._last_lines))

    async def _talk(self, request: Request) -> Reply | str:
        try:
            await self._stdin.send_all(encode_request(request))
        except trio.BrokenResourceError:
            return _ENDED
        line = await self._read_line()
        if not line.endswith(b"\n"):
            return _ENDED
        try:
            reply = decode_reply(line)
        except WireError as error:
            return f"answered with garbage ({error})"
        if reply.id != request.id:
            return f"answered request {reply.id} in place of {request.id}"
        return reply

    async def _read_line(self) -> bytes:
        # One request is one reply: nothing may follow the newline, so no bytes are kept for the next call.
        line = bytearray()
        while not line.endswith(b"\n") and (piece := await self._stdout.receive_some(1 << 20)):
            line += piece
        return bytes(line)

    async def _drain_stderr(self) -> None:
        while chunk := await self._stderr.receive_some():
            for line in filter(None, chunk.decode(errors="replace").splitlines()):
                self._last_lines.append(line)
                log.debug("schedd helper says", helper=self._name, line=line)

    async def close(self) -> None:
        """Let an idle helper end by itself; kill it when it does not within `CLOSE_GRACE`."""
        await self._stdin.aclose()
        with trio.move_on_after(CLOSE_GRACE):
            await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL it, wait until it is gone, read its last words, close the pipes; not cancellable, may be repeated."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_TIMEOUT) as scope:
            self._process.kill()
            await self._process.wait()
            with trio.move_on_after(1), suppress(trio.ClosedResourceError):  # a grandchild might hold the pipe open
                await self._drain_stderr()
        if scope.cancelled_caught:
            log.error(
                "schedd helper does not die: nothing is asked in its place until it is gone",
                helper=self._name,
                pid=self.pid,
            )
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):  # closing a pipe does not block
            for pipe in (self._stdin, self._stdout, self._stderr):
                await pipe.aclose()
