"""The embedded schedd's daemon: a Unix socket for the helpers, a scheduler for the slots, the workers' processes."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import structlog
import trio

from ewms.testing.schedd import reaper
from ewms.testing.schedd.machine import machine_ad
from ewms.testing.schedd.queue import Queue, QueueRefused
from ewms.testing.schedd.runs import Run, Site
from ewms.tms.condor.wire import Failure, Reply, Request, WireError, decode_request, encode_reply, misfit

log = structlog.stdlib.get_logger(__name__)

SOCKET_NAME: Final = "schedd.sock"
_CALLS: Final = ("submit", "query", "history", "act", "parse", "evaluate", "param")


@attrs.frozen(kw_only=True)
class Options:
    """How the daemon runs."""

    directory: Path
    slots: int
    entrypoint: Sequence[str]
    name: str
    machine: Mapping[str, str] = attrs.field(factory=dict)
    """Further attributes of the machine ad: expressions."""
    policy_interval: float = 1.0
    """s between evaluations of the periodic expressions."""


class _Wake:
    """Something may have to be done; many calls before it is done count once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


async def serve(
    options: Options,
    environ: Mapping[str, str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve for ever; when this is cancelled all workers are killed, and no process is left."""
    reaper.become_subreaper()
    wake = _Wake()
    queue = Queue(
        name=options.name,
        machine=machine_ad(options.name, options.slots, options.machine),
        journal=append,
        clock=time.time,
        wake=wake.set,
        environ=environ,
        address=f"<127.0.0.1:9618?addrs=127.0.0.1-9618&alias={options.name}&noUDP&sock=schedd_{os.getpid()}_emb>",
    )
    site = Site(queue, options.directory / "execute", options.entrypoint, environ, trio.Lock(), set())
    try:
        with _listening(options.directory) as listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_schedule, site, options.slots, wake)
                nursery.start_soon(_apply_policies, queue, options.policy_interval)
                task_status.started()
                await trio.serve_listeners(_Helpers(queue).serve, [listener])
    finally:
        reaper.kill_children()  # of reapers that were killed themselves
    raise AssertionError("the nursery above waits for ever")


@contextmanager
def _listening(directory: Path) -> Iterator[trio.SocketListener]:
    # Through the directory's descriptor: the name of a Unix socket may only have 107 bytes.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)  # nobody else may submit
    try:
        raw = socket.socket(socket.AF_UNIX)
        raw.bind(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
    finally:
        os.umask(mask)
        os.close(descriptor)
    raw.listen()
    raw.setblocking(False)
    try:
        with raw:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(raw))
    finally:
        path.unlink(missing_ok=True)


def append(path: str, events: Sequence[bytes]) -> None:
    """Append events to a log as HTCondor does: one write each, a missing directory made, no lock, no fsync."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            for event in events:
                os.write(descriptor, event)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.error("a job event log cannot be written", path=path, error=str(error))


# --- what it does by itself ---


async def _schedule(site: Site, slots: int, wake: _Wake) -> NoReturn:
    free = set(range(1, slots + 1))

    async def one(run: Run, slot: int) -> None:
        await run.run()
        free.add(slot)
        wake.set()

    async with trio.open_nursery() as nursery:
        while True:
            await wake.wait()
            site.queue.materialize()
            # A started job makes room for the factory's next one.
            while free and (jobs := site.queue.startable(len(free))):
                for job in jobs:
                    slot = min(free)
                    free.remove(slot)
                    job.run = run = Run(site, job, slot)
                    site.queue.begin(job)
                    nursery.start_soon(one, run, slot)
                site.queue.materialize()
            await trio.lowlevel.checkpoint()


async def _apply_policies(queue: Queue, interval: float) -> NoReturn:
    while True:
        await trio.sleep(interval)
        queue.apply_policies()


# --- what it is asked ---


class _Helpers:
    """The helpers' connections: one request at a time each."""

    def __init__(self, queue: Queue) -> None:
        self._calls: dict[str, Callable[..., Any]] = {name: getattr(queue, name) for name in _CALLS}

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer line by line."""
        buffer = bytearray()
        try:
            async with stream:
                while piece := await stream.receive_some(1 << 20):
                    buffer += piece
                    while (end := buffer.find(b"\n") + 1) > 0:
                        line = bytes(buffer[:end])
                        del buffer[:end]
                        await stream.send_all(encode_reply(self.answer(line)))
        except trio.BrokenResourceError:
            log.debug("a helper went away")  # the TMS was killed, or killed it

    def answer(self, line: bytes) -> Reply:
        """Make the call; its failures are part of the reply."""
        try:
            request = decode_request(line)
        except WireError as error:
            return Reply(None, failure=Failure("bug", str(error)))
        log.debug("asked", call=request.call, args=request.args)
        return self._called(request)

    def _called(self, request: Request) -> Reply:
        call = self._calls.get(request.call)
        reason = f"no such call: {request.call}" if call is None else misfit(call, request.args)
        if call is None or reason is not None:
            return Reply(request.id, failure=Failure("bug", str(reason)))
        try:
            return Reply(request.id, value=call(**request.args))
        except QueueRefused as error:
            return Reply(request.id, failure=Failure("refused", str(error)))


# --- the process ---


async def main(options: Options, environ: Mapping[str, str], *, tied: bool) -> None:
    """Serve until SIGTERM or SIGINT; when `tied`, also until standard input closes. Says `ready` on standard output."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, options, environ)
            if tied:
                nursery.start_soon(_until_input_ends, nursery.cancel_scope)
            print("ready", flush=True)  # noqa: T201  the one word of its protocol
            async for number in signals:
                log.info("stopping", signal=signal.Signals(number).name)
                break
            nursery.cancel_scope.cancel()


async def _until_input_ends(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        while await stream.receive_some():
            pass
    log.info("stopping", reason="standard input was closed: the opener has ended")
    scope.cancel()
