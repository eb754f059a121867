"""The chirp server of one worker: HTCondor's line protocol, as far as pilots use it.

A connection begins with `cookie SECRET`. Words are separated by spaces; a backslash keeps the next character. Each
answer is a line with a number: 0 or more is success (for `get_job_attr` the length of the value that follows).
"""

import secrets
from collections.abc import Callable
from typing import Final, Protocol

import trio

LINE_MAX: Final = 5120
ULOG_MAX: Final = 1023
"""HTCondor cuts a text silently there, also inside a character."""

OK: Final = 0
NOT_AUTHENTICATED: Final = -1
NOT_AUTHORIZED: Final = -2
TOO_BIG: Final = -5
INVALID_REQUEST: Final = -8

PROTECTED: Final = frozenset({"clusterid", "procid", "owner", "user", "mytype", "qdate", "globaljobid"})
"""Attributes that a job may not set."""


class ChirpJob(Protocol):
    """What a worker may do to its job."""

    wants_updates: bool
    """Without it only delayed attributes are taken. Nothing here reads or writes files of the access point."""

    def ulog(self, text: str) -> None:
        """Write a generic event."""

    def set_attribute(self, name: str, text: str) -> None:
        """Set an attribute to the expression `text`, UNDEFINED when it is none."""

    def attribute(self, name: str) -> str:
        """The text of an attribute, `UNDEFINED` when there is none."""


_BACKSLASH: Final = 0x5C
_SPACE: Final = 0x20


def words(line: bytes) -> list[str]:
    """The words of one line (pure)."""
    found: list[bytearray] = []
    word: bytearray | None = None
    escaped = False
    for byte in line:
        if escaped or byte not in (_BACKSLASH, _SPACE):
            word = bytearray() if word is None else word
            word.append(byte)
            escaped = False
        elif byte == _BACKSLASH:
            escaped = True
        elif word is not None:
            found.append(word)
            word = None
    found += [] if word is None else [word]
    return [bytes(each).decode("utf-8", "surrogateescape") for each in found]


def cut(text: str) -> str:
    """What of a `ulog` text arrives in the log (pure)."""
    raw = text.encode("utf-8", "surrogateescape")
    for stop in (b"\0", b"\v", b"\f"):
        raw = raw.partition(stop)[0]
    return raw[:ULOG_MAX].decode("utf-8", "surrogateescape")


def answer(line: bytes, job: ChirpJob) -> bytes:
    """Do what one line of an authenticated connection says (pure but for the job)."""
    match words(line):
        case ["ulog", text] if job.wants_updates and text:
            job.ulog(cut(text))
            return _number(OK)
        case ["set_job_attr", name, text] if job.wants_updates:
            if name.lower() in PROTECTED:
                return _number(NOT_AUTHORIZED)
            job.set_attribute(name, text)
            return _number(OK)
        case ["get_job_attr", name] if job.wants_updates:
            value = job.attribute(name).encode("utf-8", "surrogateescape")
            return _number(len(value)) + value
        case ["set_job_attr_delayed", name, text]:
            if name.lower().startswith("chirp"):  # HTCondor ignores other names silently
                job.set_attribute(name, text)
            return _number(OK)
    return _number(INVALID_REQUEST)


def _number(number: int) -> bytes:
    return b"%d\n" % number


async def serve(job: ChirpJob, *, task_status: trio.TaskStatus[str]) -> None:
    """Serve a worker's connections for ever; started with the text of its `.chirp.config`."""
    cookie = secrets.token_hex(16)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            await _serve_connection(stream, cookie.encode(), lambda line: answer(line, job))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connection, listeners)
        task_status.started(f"127.0.0.1 {port} {cookie}\n")
        await trio.sleep_forever()


async def _serve_connection(stream: trio.SocketStream, cookie: bytes, respond: Callable[[bytes], bytes]) -> None:
    buffer = bytearray()
    authenticated = False
    try:
        while piece := await stream.receive_some():
            buffer += piece
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer = bytearray(rest)
                reply = respond(line) if authenticated else _number(NOT_AUTHENTICATED)
                if not authenticated and secrets.compare_digest(line, b"cookie " + cookie):
                    authenticated, reply = True, _number(OK)
                await stream.send_all(reply)
            if len(buffer) > LINE_MAX:
                await stream.send_all(_number(TOO_BIG))
                return
    except trio.BrokenResourceError:
        return  # the worker closed its end, or ended
