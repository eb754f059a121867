"""What the pilot tells HTCondor, and through it the TMS: its state, its counters, its current error.

Telling is never waited for: a call here only notes the newest value of an attribute. All values are absolute, so that
the newest one is all that matters, a repeat is harmless, and what could not be sent takes no more room than one value
of each attribute.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, NoReturn, Protocol

import structlog
import trio

from ewms.contract import ChirpAttribute, PilotStatus
from ewms.pilot.chirp import ChirpClient, ChirpError, Value
from ewms.pilot.settings import PilotSettings
from ewms.secret import redact
from ewms.supervision import backoff

log = structlog.stdlib.get_logger(__name__)

LAST_WORDS_S: Final = 10.0
"""What the end of the pilot may wait for its last chirps."""
_SHORTEST_INTERVAL_S: Final = 1.0


class Destination(Protocol):
    """Where attributes go: a `ChirpClient`, or a test's."""

    async def set(self, name: ChirpAttribute, value: Value) -> None:
        """Send one attribute, or raise `ChirpError`."""


class Report:
    """The newest value of each attribute, and which of them are still to be sent."""

    def __init__(self, *, interval: float, now: Callable[[], float] = time.time) -> None:
        self._interval = interval
        self._epoch = now
        self._unsent: dict[ChirpAttribute, Value] = {}
        self._urgent = trio.Event()
        self._status: PilotStatus | None = None

    def started(self) -> None:
        """The pilot began."""
        self._note(ChirpAttribute.STARTED_TIMESTAMP, int(self._epoch()))
        self.status(PilotStatus.STARTED)

    def place(self, site: str, host: str) -> None:
        """Where the pilot runs; what is not known ("") is not told."""
        if site:
            self._note(ChirpAttribute.SITE, site)
        if host:
            self._note(ChirpAttribute.HOST, host)

    def status(self, status: PilotStatus) -> None:
        """The pilot's state; goes at once."""
        if status != self._status:
            self._status = status
            log.info("pilot status", status=str(status))
            self._note(ChirpAttribute.STATUS, str(status))
            self._urgent.set()

    def error(self, text: str, traceback: str = "") -> None:
        """The current error; goes at once."""
        self._note(ChirpAttribute.ERROR, redact(text))
        if traceback:
            self._note(ChirpAttribute.ERROR_TRACEBACK, redact(traceback))
        self._urgent.set()

    def summary(self, line: str) -> None:
        """Why the pilot ends, and what all its tasks used."""
        self._note(ChirpAttribute.SUMMARY, line)

    def counts(self, *, succeeded: int, failed: int, parked: int) -> None:
        """The counters; they wait for the interval, or for the next thing that goes at once."""
        self._note(ChirpAttribute.TASKS_TOTAL, succeeded + failed)
        self._note(ChirpAttribute.TASKS_SUCCESS, succeeded)
        if failed:
            self._note(ChirpAttribute.TASKS_FAILED, failed)
        if parked:
            self._note(ChirpAttribute.EVENTS_PARKED, parked)

    def _note(self, name: ChirpAttribute, value: Value) -> None:
        self._unsent[name] = value

    async def send_for_ever(self, destination: Destination) -> NoReturn:
        """Send what is noted: the urgent at once, the rest every interval; after an error again, with backoff."""
        delays: Iterator[float] = backoff(cap=300)
        while True:
            with trio.move_on_after(self._interval):
                await self._urgent.wait()
            self._urgent = trio.Event()
            try:
                await self.send(destination)
                delays = backoff(cap=300)
            except ChirpError as error:
                delay = next(delays)
                log.warning("cannot chirp, trying again", error=str(error), wait_s=round(delay, 1))
                await trio.sleep(delay)
                self._urgent.set()

    async def send(self, destination: Destination) -> None:
        """Send all that is noted; what fails stays noted."""
        if not self._unsent:
            return
        self._note(ChirpAttribute.LAST_UPDATED_TIMESTAMP, int(self._epoch()))
        for name in list(self._unsent):
            value = self._unsent[name]
            await destination.set(name, value)
            if self._unsent[name] == value:
                del self._unsent[name]


@asynccontextmanager
async def open_report(settings: PilotSettings) -> AsyncIterator[Report]:
    """A report that is sent as the settings say; leaving spends up to 10 s on what is left to say."""
    report = Report(interval=max(_SHORTEST_INTERVAL_S, settings.htchirp_ratelimit_interval))
    if not settings.htchirp:
        yield report
        return
    if settings.chirp_config is None:
        log.warning("EWMS_PILOT_HTCHIRP is on, but there is no _CONDOR_CHIRP_CONFIG: nothing is chirped")
        yield report
        return
    client = ChirpClient(settings.chirp_config, to_log=settings.htchirp_dest == "job_event_log")
    try:
        async with sending(report, client):
            yield report
    finally:
        client.close()


@asynccontextmanager
async def sending(report: Report, destination: Destination) -> AsyncIterator[None]:
    """Send in the background; at the end, whatever it is, up to 10 s for the last words."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report.send_for_ever, destination)
            yield
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(LAST_WORDS_S, shield=True):
            await last_words(report, destination)


async def last_words(report: Report, destination: Destination) -> None:
    """Send what is left; one second between tries."""
    while True:
        try:
            return await report.send(destination)
        except ChirpError as error:
            log.warning("cannot chirp the last words, trying again", error=str(error))
        await trio.sleep(1)
