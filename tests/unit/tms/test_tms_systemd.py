import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from ewms.liveness import Pulse, beat_here
from ewms.secret import Secret
from ewms.tms.systemd import Notifier, keep_informed


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.setblocking(False)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_what_systemd_hears(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@{tmp_path}/notify"
    with listening(address) as listener:
        notifier = Notifier(address)
        await notifier.ready("2 taskforces")
        await notifier.ping("3 taskforces")
        await notifier.status("line one\nREADY=1 é")
        with trio.CancelScope() as scope:
            scope.cancel()
            await notifier.stopping()
        assert heard(listener) == [
            "READY=1\nSTATUS=2 taskforces",
            "WATCHDOG=1\nSTATUS=3 taskforces",
            "STATUS=line one READY=1 é",
            "STOPPING=1\nSTATUS=stopping",
        ]


async def test_no_secret_and_no_endless_text_in_the_status(tmp_path: Path) -> None:
    with listening(str(tmp_path / "n")) as listener:
        secret = Secret("hunter2-hunter2")
        await Notifier(str(tmp_path / "n")).status(f"{secret.reveal()} {'x' * 10_000}")
        (message,) = heard(listener)
        assert "hunter2" not in message
        assert len(message) < 600


async def test_a_socket_that_nobody_reads_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    with capture_logs() as logs:
        notifier = Notifier(str(tmp_path / "nobody"))
        for _ in range(3):
            await notifier.status("x")
        assert len(logs) == 1
        await Notifier("").ready("not under systemd")
        assert len(logs) == 1
        await Notifier("vsock:2:1234").ready("another kind")
        assert len(logs) == 2


async def test_a_full_socket_does_not_block(tmp_path: Path, autojump_clock: MockClock) -> None:
    with listening(str(tmp_path / "n")) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        notifier = Notifier(str(tmp_path / "n"))
        with capture_logs() as logs:
            for _ in range(30):
                await notifier.status("x" * 400)
        assert [each["error"] for each in logs] == ["it takes no datagrams"]


async def test_the_watchdog_is_fed_while_all_show_life(tmp_path: Path, autojump_clock: MockClock) -> None:
    pulse = Pulse(20)
    with listening(str(tmp_path / "n")) as listener, capture_logs() as logs, pulse.child("orders"):
        async with trio.open_nursery() as nursery:
            notifier = Notifier(str(tmp_path / "n"))

            is_ready = trio.Event()

            async def inform() -> None:
                await keep_informed(notifier, pulse, lambda: "fine", is_ready, watchdog_usec=9_000_000)

            nursery.start_soon(inform)
            await trio.sleep(4)
            assert heard(listener) == ["EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1\nSTATUS=fine"] * 2
            beat_here()
            is_ready.set()
            await trio.sleep(19)
            fed = heard(listener)
            assert fed[0] == "READY=1\nSTATUS=fine"
            assert fed[1:] == ["WATCHDOG=1\nSTATUS=fine"] * 7  # every 3 s, the first one at once
            await trio.sleep(10)
            assert heard(listener)[-1] == "STATUS=stuck: orders (silent for 27 s)"
            beat_here()
            await trio.sleep(3)
            assert heard(listener)[-1] == "WATCHDOG=1\nSTATUS=fine"
            nursery.cancel_scope.cancel()
    assert [(each["event"], each["child"]) for each in logs] == [
        ("a part of the TMS is stuck, the watchdog is not fed", "orders"),
        ("a part of the TMS shows life again", "orders"),
    ]


async def test_a_start_is_not_extended_while_a_child_is_stuck(tmp_path: Path, autojump_clock: MockClock) -> None:
    pulse, is_ready = Pulse(20), trio.Event()
    with listening(str(tmp_path / "n")) as listener, pulse.child("watch"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_informed, Notifier(str(tmp_path / "n")), pulse, lambda: "waits", is_ready)
            await trio.sleep(35)
            assert heard(listener) == [
                *["EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1\nSTATUS=waits"] * 3,
                "STATUS=stuck: watch (silent for 30 s)",
            ]
            is_ready.set()
            await trio.sleep(1)
            assert heard(listener) == ["READY=1\nSTATUS=waits", "STATUS=stuck: watch (silent for 35 s)"]
            nursery.cancel_scope.cancel()
