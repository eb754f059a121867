import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from ewms.secret import Secret
from ewms.tms.liveness import Pulse, beat_here
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
    pulse = Pulse()
    with listening(str(tmp_path / "n")) as listener, capture_logs() as logs, pulse.child("orders", 20):
        async with trio.open_nursery() as nursery:
            notifier = Notifier(str(tmp_path / "n"))

            is_ready = trio.Event()

            async def inform() -> None:
                await keep_informed(notifier, pulse, lambda: "fine", is_ready, watchdog_usec=9_000_000)

            nursery.start_soon(inform)
            await trio.sleep(4)
            assert heard(listener) == ["EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1\nSTATUS=fine"] * 2
            pulse.beat("orders")
            is_ready.set()
            await trio.sleep(19)
            fed = heard(listener)
            assert fed[0] == "READY=1\nSTATUS=fine"
            assert fed[1:] == ["WATCHDOG=1\nSTATUS=fine"] * 7  # every 3 s, the first one at once
            await trio.sleep(10)
            assert heard(listener)[-1] == "STATUS=stuck: orders (silent for 27 s)"
            pulse.beat("orders")
            await trio.sleep(3)
            assert heard(listener)[-1] == "WATCHDOG=1\nSTATUS=fine"
            nursery.cancel_scope.cancel()
    assert [(each["event"], each["child"]) for each in logs] == [
        ("a part of the TMS is stuck, the watchdog is not fed", "orders"),
        ("a part of the TMS shows life again", "orders"),
    ]


async def test_each_child_has_its_own_allowed_silence(autojump_clock: MockClock) -> None:
    pulse = Pulse()
    with pulse.child("quick", 1), pulse.child("slow", 100):
        await trio.sleep(50)
        assert pulse.stuck() == {"quick": 50}
        pulse.beat("quick")
        await trio.sleep(60)
        assert pulse.stuck() == {"quick": 60, "slow": 110}
    assert pulse.stuck() == {}
    pulse.beat("quick")  # its last words may come late
    assert pulse.stuck() == {}


async def test_what_many_children_use_beats_for_its_caller(autojump_clock: MockClock) -> None:
    pulse = Pulse()
    beat_here()  # outside of any child: nothing

    async def child(name: str, is_alive: bool) -> None:
        with pulse.child(name, 5):
            async with trio.open_nursery() as nursery:  # a task of a child is the child's
                if is_alive:
                    nursery.start_soon(call_the_wms)
                await trio.sleep(20)
                assert name in pulse.stuck() or is_alive
                nursery.cancel_scope.cancel()

    async def call_the_wms() -> None:
        while True:
            beat_here()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child, "orders", True)
        nursery.start_soon(child, "report", False)
        await trio.sleep(10)
        assert pulse.stuck() == {"report": 10}
