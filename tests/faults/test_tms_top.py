"""`ewms top` as its user meets it: beside a TMS that comes, goes and comes again, on logs, and on a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from test_tms_inside import free_port
from test_tms_service import Ground, ground, process
from tms_bench import Bench, until

from ewms.secret import Secret
from ewms.testing.fakeschedd import Moment
from ewms.tms.condor.base import CondorUnreachable
from ewms.tms.day_logs import DayLogs
from ewms.tms.inside import Inside
from ewms.tms.overview import Overview, load
from ewms.tms.page import Page, serve_pages
from ewms.tms.top.model import Snapshot
from ewms.tms.top.sources import LogFiles, SourceGone, TMSPages

__all__ = ["ground"]  # a fixture

JEL = Path(__file__).parents[1] / "data" / "jel"
PATIENCE_S = 60


async def top(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ewms", "top", *arguments]
    environment = {"PATH": os.defpath, "COLUMNS": "100", "LINES": "30"}
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environment)


async def test_a_tms_that_runs_goes_and_comes_again(ground: Ground, tmp_path: Path) -> None:
    port = free_port()
    source = TMSPages(port)
    with pytest.raises(SourceGone, match="refused"):
        await source.read()
    uuid = ground.bench.order(n_workers=2)
    settings = {"TMS_METRICS_PORT": str(port)}

    async def seen() -> Snapshot:
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    found = await source.read()
                except SourceGone:
                    pass
                else:
                    if found.overview.workers == {"RUNNING": 2}:
                        return found
                await trio.sleep(0.1)

    async with process(ground, tmp_path / "tms.log", **settings):
        first = await seen()
        assert [row.uuid for row in first.overview.rows] == [uuid]
        assert first.overview.stages == {"open": 1}
        assert first.counters["submitted"] == 1
        shown = await top("--once", "--port", str(port))
        assert shown.returncode == 0, shown.stderr
        assert "RUNNING 2" in shown.stdout.decode()
        assert f"127.0.0.1:{port}" in shown.stdout.decode()
    with pytest.raises(SourceGone, match="refused"):
        await source.read()
    shown = await top("--once", "--port", str(port))
    assert shown.returncode == 1
    assert shown.stderr.decode() == f"Error: 127.0.0.1:{port}: Connection refused\n"
    async with process(ground, tmp_path / "tms.log", **settings):
        second = await seen()
    assert second.started_at != first.started_at


async def test_no_token_is_on_the_page() -> None:
    token = Secret("queue-token-0123456789")
    page = Inside(look=lambda: Overview(errors={f"cannot log in with {token.reveal()}": 1})).pages("/taskforces")
    assert page is not None
    assert load(page.body.decode()).errors == {"cannot log in with ***": 1}


async def test_the_page_shows_what_the_wms_has_open(bench: Bench) -> None:
    inside = Inside()
    async with bench.tms() as ctx:
        inside.show(ctx)
        uuid = bench.order(n_workers=3)
        await until(lambda: ctx.board.report(uuid) is not None)
        page = inside.pages("/taskforces")
        assert page is not None
        whole = load(page.body.decode())
        assert [(row.uuid, row.workers) for row in whole.rows] == [(uuid, {"IDLE": 3})]
        # It is dear to make: whoever asks again soon gets the same one.
        bench.order(n_workers=1)
        assert inside.pages("/taskforces") == page


async def test_the_page_shows_a_start_that_waits(bench: Bench) -> None:
    is_away = True

    async def away(call: str, moment: Moment) -> None:
        if is_away and (call, moment) == ("submit", "before"):
            raise CondorUnreachable("no answer")

    bench.schedd.hook = away
    async with bench.tms() as ctx:
        uuid = bench.order()
        await until(lambda: uuid in ctx.waiting)
        inside = Inside()
        inside.show(ctx)
        page = inside.pages("/taskforces")
        assert page is not None
        (row,) = load(page.body.decode()).rows
        assert (row.uuid, row.trouble) == (uuid, "its start is tried again: no answer")
        is_away = False
        await until(lambda: ctx.board.report(uuid) is not None and not ctx.waiting)


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (None, "HTTP 404"),
        (Page(b"hello\n"), "no TMS of this version answers"),
        (Page(b"stuck\n", status=503), "HTTP 503"),
    ],
)
async def test_a_port_where_something_else_answers(page: Page | None, why: str, nursery: trio.Nursery) -> None:
    port = await nursery.start(serve_pages, lambda _: page, 0)
    with pytest.raises(SourceGone, match=why):
        await TMSPages(port).read()
    nursery.cancel_scope.cancel()


async def test_a_tms_that_accepts_and_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    async def silence(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silence, [listener])
        with pytest.raises(SourceGone, match="no answer within 10 s"):
            await TMSPages(listener.socket.getsockname()[1]).read()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def hanging_up() -> AsyncIterator[int]:
    """A port where each connection is closed in the middle of an answer."""

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_tms_that_is_killed_while_it_answers(hanging_up: int) -> None:
    with pytest.raises(SourceGone):
        await TMSPages(hanging_up).read()


async def test_logs_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel"
    whole = (JEL / "factory-with-notes.jel").read_bytes()
    path.write_bytes(whole[:700])
    source = LogFiles(DayLogs([path]))
    first = await source.read()
    assert first.counters["events read"] > 0
    assert not first.is_catching_up
    assert first.log_lag_bytes == len(whole[:700]) - whole[:700].rindex(b"\n...\n") - 5, "the torn event waits"
    path.write_bytes(whole)
    second = await source.read()
    assert second.counters["events read"] > first.counters["events read"]
    assert [row.uuid for row in second.overview.rows] == ["TF-1"]
    third = await source.read()
    assert third == attrs.evolve(second, at=third.at)
    assert third.overview is second.overview, "nothing new: nothing is counted again"
    path.unlink()
    with pytest.raises(SourceGone, match="No such file"):
        await source.read()
    path.write_bytes(whole)
    await source.read()


async def test_one_frame_and_a_picture_of_logs(tmp_path: Path) -> None:
    shown = await top(str(JEL / "factory-with-notes.jel"), str(JEL / "vacate-rerun.jel"))
    assert shown.returncode == 0
    text = shown.stdout.decode()
    assert "2 day logs" in text
    assert re.search(r"cluster:70 +1 ", text)
    assert "\x1b" not in text
    picture = tmp_path / "top.svg"
    assert (await top("--svg", str(picture), str(JEL / "vacate-rerun.jel"))).returncode == 0
    assert ET.fromstring(picture.read_text()).get("class") == "rich-terminal"


async def test_wrong_uses_are_told() -> None:
    shown = await top()
    assert shown.returncode == 2
    assert b"TMS_METRICS_PORT" in shown.stderr
    shown = await top("--once", str(JEL / "vacate.jel") + ".gz")
    assert shown.returncode == 2


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`ewms top` on a pseudo-terminal, and the other end of that."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "ewms", "top", *arguments]
    environment = {"PATH": os.defpath, "TERM": "xterm"}
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        yield running, ours
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def read_until(terminal: int, text: str) -> str:
    """What comes, until `text` does; "" for as long as it lives."""
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    while text.encode() not in seen or not text:
        if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            pytest.fail(f"{text!r} did not come: {seen[-2000:]!r}")
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the last one who had the other end has gone
            break
    return seen.decode()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_until_a_signal_and_gives_the_terminal_back(sign: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel"
    path.write_bytes((JEL / "vacate-rerun.jel").read_bytes())
    with on_a_terminal("--interval", "0.2", str(path)) as (running, terminal):
        assert "\x1b[?1049h" in read_until(terminal, "cluster:70")
        with path.open("ab") as log:
            log.write((JEL / "factory-with-notes.jel").read_bytes())
        read_until(terminal, "TF-1")
        path.unlink()
        read_until(terminal, "no answer for")
        running.send_signal(sign)
        rest = read_until(terminal, "")
        assert running.wait(PATIENCE_S) == 0
    assert "\x1b[?1049l" in rest, "the alternate screen is left"
    assert "\x1b[?25h" in rest, "the cursor is shown again"
    assert "Traceback" not in rest


async def test_on_a_terminal_a_tms_comes_goes_and_comes_again(ground: Ground, tmp_path: Path) -> None:
    port = free_port()
    ground.bench.order(n_workers=2)

    async def comes(text: str) -> None:
        await trio.to_thread.run_sync(read_until, terminal, text)

    with on_a_terminal("--interval", "0.2", "--port", str(port)) as (running, terminal):
        await comes("Connection refused")
        async with process(ground, tmp_path / "tms.log", TMS_METRICS_PORT=str(port)):
            await comes("RUNNING 2")
        await comes("no answer for")
        async with process(ground, tmp_path / "tms.log", TMS_METRICS_PORT=str(port)):
            await comes("counters begin anew")
            await comes("RUNNING 2")
        running.send_signal(signal.SIGINT)
        rest = await trio.to_thread.run_sync(read_until, terminal, "")
    assert "Traceback" not in rest
