"""Processes that leave nothing behind: the Trio side of `launcher.py`, which says how it is done."""

import json
import socket
import struct
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from ewms.pilot.containers import launcher as program
from ewms.pilot.containers.base import ContainerError

log = structlog.stdlib.get_logger(__name__)

TERM_WAIT_S: Final = 1.0
"""What a process that is to end gets between SIGTERM and SIGKILL, to flush its output."""
MOST_FED: Final = 8192
"""Characters: a pipe takes them, and what they are in UTF-8, at once, whether somebody reads or not."""
GONE_DEADLINE_S: Final = TERM_WAIT_S + program.SWEEP_DEADLINE_S + 5
"""By then the supervisor has answered, or it hangs itself."""


@attrs.frozen(kw_only=True)
class Command:
    """One process to start."""

    argv: tuple[str, ...]
    """`argv[0]` is the path of the program; nothing is searched and no shell is used."""
    env: Mapping[str, str]
    """The whole environment: nothing is inherited."""
    cwd: Path
    stdout: Path
    stderr: Path
    stdin: str | None = ""
    """What it can read on its standard input, which is never on disk and on no command line; None: `Process.feed`."""
    term_wait: float = TERM_WAIT_S


_FIELDS: Final = tuple(field.name for field in attrs.fields(Command))


@attrs.frozen
class Exit:
    """How a process ended, after its whole tree was gone."""

    code: int
    """Its exit code; 128 + N when signal N ended it."""
    cpu_s: float
    """User and system time of it and of all its descendants that ended."""
    max_rss: int
    """Bytes: the largest of them."""
    swept: int
    """Processes that it left behind, and that were killed."""
    survivors: tuple[int, ...]
    """Processes that not even SIGKILL ended: they hang in the kernel."""


class Process:
    """A process that runs under a supervisor."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._exit: Exit | None = None
        self.pid = 0

    @property
    def exit(self) -> Exit | None:
        """How it ended; None before that, and when it could not be learned."""
        return self._exit

    async def wait(self) -> Exit:
        """Wait until the process ended and all its descendants are gone."""
        if self._exit is None:
            message = await self._receive()
            if message is None:
                raise ContainerError("the process's supervisor ended before it")
            self._exit = _exit_of(message)
        return self._exit

    async def until_waiting(self) -> None:
        """Wait until a process whose standard input comes later wrote a byte to its file descriptor 3; once.

        Raises:
            ContainerError: it ended.
        """
        message = await self._receive()
        if message is None or "waiting" not in message:
            self._exit = None if message is None else _exit_of(message)
            raise ContainerError("the process ended before it had its standard input")

    async def feed(self, stdin: str) -> None:
        """Give it what it reads on its standard input, at most `MOST_FED` characters, and the end of file; once.

        Raises:
            ContainerError: its supervisor is gone.
        """
        assert 0 < len(stdin) <= MOST_FED
        try:
            await self._send(stdin.encode("utf-8", "surrogateescape"))
        except trio.BrokenResourceError as error:
            raise ContainerError("the process's supervisor ended before it") from error

    async def _send(self, message: bytes) -> None:
        await self._stream.send_all(struct.pack("!I", len(message)) + message)

    async def _start(self, command: Command) -> None:
        request = {name: _plain(getattr(command, name)) for name in _FIELDS}
        try:
            await self._send(json.dumps(request).encode())
            message = await self._receive()
        except trio.BrokenResourceError:
            message = None
        if message is None:
            raise ContainerError("the launcher of processes is gone")
        if "error" in message:
            self._exit = Exit(127, 0.0, 0, 0, ())
            raise ContainerError(f"cannot start {message['error']}")
        self.pid = message["started"]

    async def _stop(self) -> None:
        """Have the whole tree killed, and wait until it is gone."""
        if self._exit is not None:
            return
        try:
            await self._stream.send_eof()
            while (message := await self._receive()) is not None:
                if "code" in message:
                    self._exit = _exit_of(message)
                if message.get("survivors"):
                    log.error("processes do not die of SIGKILL", pids=message["survivors"])
        except trio.BrokenResourceError:
            return  # the supervisor is gone, and the launcher kills what it left

    async def _receive(self) -> dict[str, Any] | None:
        while (end := self._buffer.find(b"\n")) < 0:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message


def _exit_of(message: Mapping[str, Any]) -> Exit:
    return Exit(**{**message, "survivors": tuple(message["survivors"])})


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else dict(value) if isinstance(value, Mapping) else value


class Launcher:
    """Starts processes through the launcher program; made by `open_launcher`."""

    def __init__(self, control: trio.socket.SocketType) -> None:
        self._control = control

    @asynccontextmanager
    async def run(self, command: Command) -> AsyncIterator[Process]:
        """Run one process; leaving for whatever reason leaves nothing of its tree behind.

        Raises:
            ContainerError: it could not be started.
        """
        mine, theirs = trio.socket.socketpair()
        process = Process(trio.SocketStream(mine))
        try:
            with theirs:
                await self._hand_over(theirs)
            await process._start(command)
            yield process
        finally:
            with trio.move_on_after(GONE_DEADLINE_S, shield=True) as scope:
                await process._stop()
            if scope.cancelled_caught:
                log.error("a supervisor does not answer", pid=process.pid)
            mine.close()

    async def _hand_over(self, theirs: trio.socket.SocketType) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs.fileno()]))
        try:
            await self._control.sendmsg([b"+"], [rights])
        except OSError as error:
            raise ContainerError(f"the launcher of processes is gone ({error})") from error


@asynccontextmanager
async def open_launcher() -> AsyncIterator[Launcher]:
    """Start the launcher program; it ends, with all that it started, when the context is left or this process dies."""
    mine, theirs = trio.socket.socketpair()
    with mine:
        with theirs:
            process = await trio.lowlevel.open_process(
                # -I -S: nothing of the user's Python set-up, and 10 ms instead of 40.
                [sys.executable, "-I", "-S", program.__file__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is the pilot's alone
            )
        try:
            yield Launcher(mine)
        finally:
            mine.close()
            with trio.move_on_after(GONE_DEADLINE_S, shield=True):
                await process.wait()
            if process.returncode is None:
                process.kill()
