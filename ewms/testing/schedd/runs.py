"""One run of one job, from the match to what becomes of the job: the worker's process, sandbox and chirp server."""

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import classad2
import structlog
import trio

from ewms.testing.schedd import chirp, logtext, reaper
from ewms.testing.schedd.jobs import (
    HOLD_EXECUTE_DURATION,
    HOLD_INPUT_TRANSFER,
    HOLD_JOB_DURATION,
    HOLD_OUTPUT_TRANSFER,
    Ended,
    Fate,
    Job,
    Status,
    Stop,
    fate,
    lost,
    stopped,
)
from ewms.testing.schedd.logtext import Usage
from ewms.testing.schedd.machine import MAX_VACATE_TIME
from ewms.testing.schedd.queue import Queue
from ewms.testing.schedd.sandbox import (
    Sandbox,
    TransferFailed,
    command,
    deliver_outputs,
    environment,
    receive_inputs,
)

log = structlog.stdlib.get_logger(__name__)

_REAPER: Final = (sys.executable, "-I", "-S", reaper.__file__)
_REAPER_GRACE: Final = 5.0
"""How long, in s, a reaper may take to kill its worker's tree and end, when its input is closed."""


@attrs.frozen
class Site:
    """What all runs share."""

    queue: Queue
    directory: Path
    entrypoint: Sequence[str]
    environ: Mapping[str, str]
    starting: trio.Lock
    """Held while a reaper is started: a child that nobody knows yet must not be taken for a stray."""
    reapers: set[int]


@attrs.frozen
class ChirpJob:
    """A job, as its worker's chirp server sees it."""

    queue: Queue
    job: Job

    @property
    def wants_updates(self) -> bool:
        """See `chirp.ChirpJob`."""
        return bool(self.job.value("WantRemoteUpdates", self.job.value("WantIOProxy", False)))

    def ulog(self, text: str) -> None:
        """See `chirp.ChirpJob`."""
        self.queue.write(self.job, logtext.generic(self.job.cluster, self.job.proc, text))

    def set_attribute(self, name: str, text: str) -> None:
        """See `chirp.ChirpJob`."""
        try:
            tree = classad2.ExprTree(text)
        except classad2.ClassAdException:
            tree = classad2.ExprTree("undefined")
        old = repr(self.job.ad.lookup(name)) if name in self.job.ad else None
        self.job.ad[name] = tree
        event = logtext.attribute_set(self.job.cluster, self.job.proc, name, repr(tree), old)
        self.queue.write(self.job, event)

    def attribute(self, name: str) -> str:
        """See `chirp.ChirpJob`."""
        return repr(self.job.ad.lookup(name)) if name in self.job.ad else "UNDEFINED"


class Run:
    """A run that is under way (`jobs.Run`)."""

    def __init__(self, site: Site, job: Job, slot: int) -> None:
        self._site = site
        self._queue = site.queue
        self._job = job
        self._ids = (job.cluster, job.proc)
        self._slot = f"slot1_{slot}@{site.queue.name}"
        self._stopping = trio.Event()
        self._matched = trio.current_time()
        self._executing = math.nan

    def stop(self) -> None:
        """See `jobs.Run`."""
        self._stopping.set()

    async def run(self) -> None:
        """The whole run; afterwards the job is settled."""
        number = self._job.ad["NumShadowStarts"]
        box = Sandbox(self._site.directory / f"dir_{self._job.cluster}_{self._job.proc}_{number}")
        try:
            box.create()
            settled = await self._in(box)
        finally:
            box.remove()
        self._queue.settle(self._job, settled)

    async def _in(self, box: Sandbox) -> Fate:
        self._write_transfer("Started transferring input files", self._queue.address)
        try:
            await trio.to_thread.run_sync(receive_inputs, box, self._job.ad)
        except TransferFailed as error:
            return self._transfer_failure(error, HOLD_INPUT_TRANSFER, "input", executed=False)
        finally:
            self._write_transfer("Finished transferring input files")
        if self._job.stop is not None:
            return stopped(self._job, self._job.stop, self._usage())
        ended = await self._with_chirp(box)
        if ended is None:
            await self._kill_strays()
            return lost(self._job, "the process around the worker died", self._usage())
        self._queue.write(self._job, logtext.image_size(*self._ids, ended.usage))
        if not self._job.is_stopping:
            try:
                await trio.to_thread.run_sync(deliver_outputs, box, self._job.ad)
            except TransferFailed as error:
                return self._transfer_failure(error, HOLD_OUTPUT_TRANSFER, "output", executed=True)
            self._write_transfer("Finished transferring output files")
            self._queue.count_end(self._job, ended)
        return fate(self._job, ended)

    # --- the process ---

    async def _with_chirp(self, box: Sandbox) -> Ended | None:
        async with trio.open_nursery() as chirps:
            config = await chirps.start(chirp.serve, ChirpJob(self._queue, self._job))
            box.describe(self._job.ad, self._queue.machine, config)
            ended = await self._work(box)
            chirps.cancel_scope.cancel()
        return ended

    async def _work(self, box: Sandbox) -> Ended | None:
        spec = {
            "argv": command(self._job.ad, self._site.entrypoint),
            "env": environment(box, self._job.ad, self._site.environ),
            "cwd": str(box.scratch),
            "stdout": str(box.stdout),
            "stderr": str(box.stderr),
            "orphaned": str(box.root),
        }
        async with self._site.starting:
            process = await trio.lowlevel.open_process(
                _REAPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            self._site.reapers.add(process.pid)
        try:
            return await self._supervise(process, json.dumps(spec).encode() + b"\n", box)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _REAPER_GRACE):
                await self._end(process)
            self._site.reapers.discard(process.pid)

    async def _supervise(self, process: trio.Process, spec: bytes, box: Sandbox) -> Ended | None:
        """What the reaper says of its worker's end; None when the reaper itself died."""
        assert process.stdin is not None
        assert process.stdout is not None
        send, lines = process.stdin.send_all, _Lines(process.stdout)
        try:
            await send(spec)
            if await lines.next("started") is None:
                return None
            self._executing = trio.current_time()
            self._queue.executes(self._job, self._slot, str(box.scratch))
            results: list[list[str] | None] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_asked, send)
                results.append(await lines.next("ended"))
                nursery.cancel_scope.cancel()
        except trio.BrokenResourceError:
            return None
        (result,) = results
        if result is None:
            return None
        status, user_s, system_s, rss_kb = result
        code = os.waitstatus_to_exitcode(int(status))
        usage = self._usage(float(user_s), float(system_s), int(rss_kb) // 1024)
        return Ended(code if code >= 0 else None, -code if code < 0 else None, usage)

    async def _stop_when_asked(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        limits = [
            (self._limit("AllowedExecuteDuration", self._executing), HOLD_EXECUTE_DURATION, "execute"),
            (self._limit("AllowedJobDuration", self._matched), HOLD_JOB_DURATION, "job"),
        ]
        deadline, code, name = min(limits)
        with trio.move_on_at(deadline) as limit:
            await self._stopping.wait()
        if limit.cancelled_caught and self._job.stop is None:
            allowed = self._job.value(f"Allowed{name.capitalize()}Duration", 0)
            shown = f"{allowed // 60:02d}:{allowed % 60:02d}"
            reason = f"The job exceeded allowed {name} duration of {shown}"
            self._queue.stop_run(self._job, Stop(Status.HELD, reason, code))
        with suppress(trio.BrokenResourceError):  # it ended just now
            await send(b"term\n")
            await trio.sleep(min(self._job.value("JobMaxVacateTime", MAX_VACATE_TIME), MAX_VACATE_TIME))
            await send(b"kill\n")

    def _limit(self, attribute: str, since: float) -> float:
        allowed = self._job.value(attribute, 0)
        return since + allowed if allowed > 0 else math.inf

    async def _end(self, process: trio.Process) -> None:
        """Let the reaper kill what is left, and end."""
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.aclose()
        with trio.move_on_after(_REAPER_GRACE) as grace:
            await process.wait()
        if grace.cancelled_caught:
            log.error("a reaper does not end", pid=process.pid)
            process.kill()
            await process.wait()
        await process.stdout.aclose()

    async def _kill_strays(self) -> None:
        async with self._site.starting:
            await trio.to_thread.run_sync(reaper.kill_children, frozenset(self._site.reapers))

    # --- the log ---

    def _write_transfer(self, what: str, host: str | None = None) -> None:
        self._queue.write(self._job, logtext.transferring(*self._ids, what, host))

    def _transfer_failure(self, error: TransferFailed, code: int, way: str, *, executed: bool) -> Fate:
        ap, ep = f"access point {self._queue.name}", f"execution point {self._slot}"
        sender, receiver = (ap, ep) if way == "input" else (ep, ap)
        usage = attrs.evolve(self._usage(), executed=executed)
        reason = f"Transfer {way} files failure at {sender} while sending files to {receiver}. Details: {error.details}"
        said = f"Failed to transfer files: |Error: {error.details}"
        starter_says = logtext.starter_error(
            *self._ids, self._slot, said, code=HOLD_INPUT_TRANSFER, subcode=error.subcode or errno.EIO
        )
        ending = stopped(self._job, Stop(Status.HELD, reason, code, error.subcode, eviction=code), usage)
        return attrs.evolve(ending, events=[starter_says, *ending.events])

    def _usage(self, user_s: float = 0, system_s: float = 0, memory_mb: int = 0) -> Usage:
        executed = not math.isnan(self._executing)
        now = trio.current_time()
        value = self._job.value
        return Usage(
            user_s=user_s,
            system_s=system_s,
            executed_s=int(now - self._executing) if executed else 0,
            busy_s=int(now - self._matched),
            memory_mb=memory_mb,
            cpus=value("RequestCpus", 1),
            disk_kb=value("RequestDisk", 0),
            memory_request_mb=value("RequestMemory", 0),
            executed=executed,
        )


class _Lines:
    """The lines that a reaper says."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def next(self, word: str) -> list[str] | None:
        """The rest of the next line, which must begin with `word`; None when the reaper ended without a word."""
        while b"\n" not in self._buffer:
            piece = await self._stream.receive_some()
            if not piece:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        first, *rest = line.decode().split()
        assert first == word, f"the reaper said {line!r}"
        return rest
