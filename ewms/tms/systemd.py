"""Readiness, status line and watchdog, as systemd's `Type=notify` wants them: datagrams to its notify socket.

The watchdog is fed only while every child of the service shows life (`Pulse`). When one is stuck, it is named in the
log and in the status, the pings stop, and systemd restarts the service into a correct state.
"""

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn

import structlog
import trio

from ewms.liveness import Pulse
from ewms.secret import redact

log = structlog.stdlib.get_logger(__name__)

STATUS_INTERVAL: Final = 10.0
_SEND_TIMEOUT: Final = 1.0
_LONGEST_STATUS: Final = 500


class Notifier:
    """Speaks to the notify socket at `address` (`NOTIFY_SOCKET`); without one, to nobody.

    WATCHDOG_PID is not looked at: inside a container the TMS is not the process that systemd started.
    """

    def __init__(self, address: str) -> None:
        self._address = _socket_address(address)
        if address and self._address is None:
            log.warning("NOTIFY_SOCKET: is no path and no abstract socket, systemd hears nothing", address=address)
        self._said_fault = False

    async def starting(self, status: str, more: float) -> None:
        """The start is still under way, and may take `more` s from now (systemd's own limit is 90 s in all)."""
        await self._send([b"EXTEND_TIMEOUT_USEC=%d" % (more * 1e6), b"WATCHDOG=1", _status(status)])

    async def ready(self, status: str) -> None:
        """The service does its work now."""
        await self._send([b"READY=1", _status(status)])

    async def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        await self._send([_status(text)])

    async def ping(self, status: str) -> None:
        """A sign of life for the watchdog."""
        await self._send([b"WATCHDOG=1", _status(status)])

    async def stopping(self) -> None:
        """The service ends because it was told to; sent even when the caller is being cancelled."""
        with trio.CancelScope(shield=True):  # bounded by `_SEND_TIMEOUT`
            await self._send([b"STOPPING=1", _status("stopping")])

    async def _send(self, lines: Iterable[bytes]) -> None:
        if self._address is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, trio.fail_after(_SEND_TIMEOUT):
                # Connected first: the kernel then knows whose full queue a wait is for (else we would spin).
                await sender.connect(self._address)
                await sender.send(b"\n".join(lines))
        except (OSError, trio.TooSlowError) as error:
            if not self._said_fault:
                reason = str(error) or "it takes no datagrams"
                log.warning("systemd cannot be told, trying on", socket=repr(self._address), error=reason)
            self._said_fault = True
        else:
            self._said_fault = False


def _socket_address(text: str) -> bytes | None:
    """A path as it is; `@name` is an abstract socket, which the kernel writes with a leading NUL."""
    if text.startswith("/"):
        return text.encode()
    return b"\0" + text[1:].encode() if text.startswith("@") and len(text) > 1 else None


def _status(text: str) -> bytes:
    # A new-line would begin another assignment.
    return b"STATUS=" + " ".join(redact(text).split())[:_LONGEST_STATUS].encode("utf-8", "replace")


async def keep_informed(
    notifier: Notifier,
    pulse: Pulse,
    status: Callable[[], str],
    is_ready: trio.Event,
    *,
    watchdog_usec: int | None = None,
) -> NoReturn:
    """Say when the service is ready, and then, often enough, how it is; `status` is asked each time."""
    interval = STATUS_INTERVAL if not watchdog_usec else min(STATUS_INTERVAL, watchdog_usec / 1e6 / 3)
    known_stuck: set[str] = set()
    is_said = False
    while True:
        stuck = pulse.stuck()
        _tell(stuck, known_stuck)
        known_stuck = set(stuck)
        if is_ready.is_set() and not is_said:
            is_said = True
            await notifier.ready(status())
        if stuck:
            await notifier.status(f"stuck: {describe(stuck)}")
        elif is_said:
            await notifier.ping(status())
        else:  # it may wait for another TMS to end, or for a schedd, for as long as that takes
            await notifier.starting(status(), 3 * STATUS_INTERVAL)
        if is_said:
            await trio.sleep(interval)
        else:
            with trio.move_on_after(interval):
                await is_ready.wait()


def describe(stuck: Mapping[str, float]) -> str:
    """Who is stuck, in words."""
    return ", ".join(f"{name} (silent for {silence:.0f} s)" for name, silence in stuck.items())


def _tell(stuck: Mapping[str, float], known: set[str]) -> None:
    for name, silence in stuck.items():
        if name not in known:
            log.error("a part of the TMS is stuck, the watchdog is not fed", child=name, silent_s=round(silence))
    for name in sorted(known - stuck.keys()):
        log.info("a part of the TMS shows life again", child=name)
