"""Where `ewms top` reads: a TMS's pages on this machine, or day logs."""

import math
import os
from functools import partial
from typing import Final, Protocol

import attrs
import h11
import trio

from ewms.groups import leaves
from ewms.tms.day_logs import DayLogs, LogUnreadable
from ewms.tms.page import HOST
from ewms.tms.top import offline, scrape
from ewms.tms.top.model import Snapshot

_PATIENCE: Final = 10.0
"""For one page, in s: a TMS that reads its logs after a restart is slow."""
_LONGEST_READ: Final = 0.5
"""So many s logs are read before the next frame shows how far."""


class SourceGone(Exception):
    """It does not answer now; the text says why, for a person."""


class Source(Protocol):
    """Something that can be looked at again and again."""

    @property
    def name(self) -> str:
        """Where it is."""

    async def read(self) -> Snapshot:
        """What it says now; raises SourceGone."""


class TMSPages:
    """A TMS that serves its pages at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def name(self) -> str:
        """Its address."""
        return f"{HOST}:{self._port}"

    async def read(self) -> Snapshot:
        """Both pages; raises SourceGone."""
        metrics, taskforces = await self._get("/metrics"), await self._get("/taskforces")
        try:
            return scrape.snapshot(metrics, taskforces, at=trio.current_time())
        except ValueError as error:
            raise SourceGone(f"no TMS of this version answers: {error}") from error

    async def _get(self, path: str) -> str:
        try:
            with trio.fail_after(_PATIENCE):
                status, body = await _fetch(self._port, path)
        except trio.TooSlowError as error:
            raise SourceGone(f"no answer within {_PATIENCE:.0f} s") from error
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            # Why a connection was refused stands in the error's cause, in a group of one.
            raise SourceGone(_words(next(leaves(error.__cause__ or error)))) from error
        if status != 200:
            raise SourceGone(f"{path}: HTTP {status}; is this a TMS of this version?")
        return body.decode("utf-8", "replace")


async def _fetch(port: int, path: str) -> tuple[int, bytes]:
    connection, body, status = h11.Connection(h11.CLIENT), bytearray(), 0
    async with await trio.open_tcp_stream(HOST, port) as stream:
        for event in (
            h11.Request(method="GET", target=path, headers=[("Host", HOST), ("Connection", "close")]),
            h11.EndOfMessage(),
        ):
            await stream.send_all(connection.send(event) or b"")
        while True:
            match connection.next_event():
                case h11.Response() as response:
                    status = response.status_code
                case h11.Data() as data:
                    body += data.data
                case h11.EndOfMessage():
                    return status, bytes(body)
                case _:
                    connection.receive_data(await stream.receive_some(65536))


class LogFiles:
    """Day logs, as long as they grow; `whole`: read all that there is before the first answer."""

    def __init__(self, logs: DayLogs, *, whole: bool = False) -> None:
        self._logs = logs
        self._whole = whole
        self._last: Snapshot | None = None

    @property
    def name(self) -> str:
        """Their names."""
        first, *more = (path.name for path in self._logs.tallies)
        return f"{first} and {len(more)} more" if len(more) > 1 else ", ".join([first, *more])

    async def read(self) -> Snapshot:
        """What they have, some more of it with each call until all is read; raises SourceGone."""
        try:
            more = await self._read_some()
            behind = await trio.to_thread.run_sync(self._logs.behind)
        except (LogUnreadable, OSError) as error:
            raise SourceGone(_words(error)) from error
        if self._last is not None and offline.is_true_still(self._last, self._logs, behind=behind):
            # To look at thousands of taskforces again takes a while.
            self._last = attrs.evolve(self._last, at=trio.current_time(), is_catching_up=more)
        else:
            make = partial(offline.snapshot, self._logs, at=trio.current_time(), behind=behind, more=more)
            self._last = await trio.to_thread.run_sync(make)
        return self._last

    async def _read_some(self) -> bool:
        """Read for a while; whether there is more to read (an event that is still being written is not)."""
        until = math.inf if self._whole else trio.current_time() + _LONGEST_READ
        for path in self._logs.tallies:
            while await trio.to_thread.run_sync(self._logs.read_on, path):
                if trio.current_time() >= until:
                    return True
        return False


def _words(error: BaseException) -> str:
    """What happened, first: a frame may cut the end."""
    if isinstance(error, OSError) and error.errno:
        return ": ".join(filter(None, [os.strerror(error.errno), error.filename and str(error.filename)]))
    return str(error)
