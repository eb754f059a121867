"""Chirp: one line of printable ASCII within the limit, and a client that nothing can hang."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ewms.contract import MAX_CHIRP_BYTES, ChirpAttribute, PilotStatus
from ewms.pilot import chirp
from ewms.pilot.chirp import ChirpClient, ChirpError, attribute_value, command_word, log_line, quoted
from ewms.pilot.report import Report, sending

ERROR = ChirpAttribute.ERROR


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("Tasking", 'HTChirpEWMSPilotError: "Tasking"'),
        (17, 'HTChirpEWMSPilotError: "17"'),
        ('a "b" \\ c\nd', 'HTChirpEWMSPilotError: "a \\"b\\" \\\\ c\\nd"'),
        ("ünï\x00\t", 'HTChirpEWMSPilotError: "?n??"'),
        ("", 'HTChirpEWMSPilotError: ""'),
    ],
)
def test_log_line(value: str | int, line: str) -> None:
    assert log_line(ERROR, value) == line


@given(st.text(max_size=3000))
def test_any_text_is_one_short_line_with_both_its_quotes(text: str) -> None:
    line = log_line(ERROR, text)
    assert len(line.encode("ascii")) <= MAX_CHIRP_BYTES
    assert re.fullmatch(r'[A-Za-z]+: "(?:[^"\\]|\\["\\n])*"', line)


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    short = quoted("task failed (exit code 1): " + "x" * 5000 + "\nValueError: the reason", 300)
    assert short.startswith("task failed (exit code 1): ")
    assert short.endswith("\\nValueError: the reason")
    assert len(short) <= 300


@pytest.mark.parametrize(("value", "text"), [(3, "3"), ("a b", '"a b"')])
def test_attribute_value(value: str | int, text: str) -> None:
    assert attribute_value(value) == text


def test_a_command_word_has_its_spaces_escaped() -> None:
    assert command_word('a: "b \\n"') == 'a:\\ "b\\ \\\\n"'


# --- the client, against a server of our own ---


@attrs.define
class Server:
    """Answers like the starter: one line for each line."""

    config: Path
    lines: list[bytes] = attrs.field(factory=list)
    answer: Callable[[bytes], Awaitable[bytes | None]] | None = None
    """None closes the connection."""
    connections: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        buffer = b""
        async with stream:
            async for data in stream:
                buffer += data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    self.lines.append(line)
                    reply = await self.answer(line) if self.answer else b"0\n"
                    if reply is None:
                        return
                    await stream.send_all(reply)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def running_server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "chirp.config")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        server.config.write_text(f"127.0.0.1 {port} the-cookie\n")
        yield server
        nursery.cancel_scope.cancel()


async def test_cookie_first_then_commands_on_one_connection(server: Server) -> None:
    client = ChirpClient(server.config, to_log=True)
    await client.set(ChirpAttribute.STATUS, "Done")
    await client.set(ChirpAttribute.TASKS_TOTAL, 3)
    client.close()
    assert server.lines == [
        b"cookie the-cookie",
        b'ulog HTChirpEWMSPilotStatus:\\ "Done"',
        b'ulog HTChirpEWMSPilotTasksTotal:\\ "3"',
    ]
    assert server.connections == 1


async def test_job_attributes(server: Server) -> None:
    client = ChirpClient(server.config, to_log=False)
    await client.set(ChirpAttribute.TASKS_TOTAL, 3)
    await client.set(ERROR, "a\nb c")
    client.close()
    assert server.lines[1:] == [
        b"set_job_attr HTChirpEWMSPilotTasksTotal 3",
        b'set_job_attr HTChirpEWMSPilotError "a\\\\nb\\ c"',
    ]


async def test_an_attribute_of_the_jobs_ad_may_come_in_pieces(server: Server) -> None:
    async def answer(line: bytes) -> bytes:
        return b'7\n"a\nb c"' if line.startswith(b"get") else b"0\n"

    server.answer = answer
    client = ChirpClient(server.config, to_log=True)
    assert await client.get("VacateReason") == '"a\nb c"'
    await client.set(ChirpAttribute.TASKS_TOTAL, 3)
    client.close()
    assert server.lines[1:] == [b"get_job_attr VacateReason", b'ulog HTChirpEWMSPilotTasksTotal:\\ "3"']
    assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "value"), [(b"9\nUNDEFINED\n", "UNDEFINED"), (b"0\n", ""), (b"9" * 4500 + b"\nx", None)]
)
async def test_a_value_ends_where_its_length_says(server: Server, reply: bytes, value: str | None) -> None:
    async def answer(line: bytes) -> bytes:
        return reply if line.startswith(b"get") else b"0\n"

    server.answer = answer
    client = ChirpClient(server.config, to_log=True)
    if value is None:
        with pytest.raises(ChirpError):
            await client.get("VacateReason")
    else:
        assert await client.get("VacateReason") == value
    client.close()


async def test_after_an_error_it_connects_anew(server: Server) -> None:
    client = ChirpClient(server.config, to_log=True)
    replies = iter([b"0\n", b"-3\n", b"0\n", b"0\n"])

    async def answer(line: bytes) -> bytes:
        return next(replies)

    server.answer = answer
    with pytest.raises(ChirpError, match="refused: -3"):
        await client.set(ERROR, "x")
    await client.set(ERROR, "x")
    client.close()
    assert server.connections == 2


@pytest.mark.parametrize("how", ["closes", "is silent", "talks nonsense"])
async def test_a_server_that_misbehaves_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(chirp, "TIMEOUT_S", 0.1)

    async def answer(line: bytes) -> bytes | None:
        if how == "is silent":
            await trio.sleep_forever()
        return b"hello\n" if how == "talks nonsense" else None

    server.answer = answer
    client = ChirpClient(server.config, to_log=True)
    with pytest.raises(ChirpError):
        await client.set(ERROR, "x")
    client.close()


async def test_no_configuration_is_an_error(tmp_path: Path) -> None:
    client = ChirpClient(tmp_path / "none", to_log=True)
    with pytest.raises(ChirpError, match="no chirp configuration"):
        await client.set(ERROR, "x")


# --- the report ---


@attrs.define
class Destination:
    """Notes what it gets; fails while told to."""

    failing: bool = False
    got: list[tuple[float, str, object]] = attrs.field(factory=list)

    async def set(self, name: ChirpAttribute, value: chirp.Value) -> None:
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise ChirpError("down")
        self.got.append((trio.current_time(), name.removeprefix("HTChirpEWMSPilot"), value))

    def names(self) -> list[str]:
        return [name for _, name, _ in self.got]


async def test_a_status_goes_at_once_and_counters_wait(autojump_clock: trio.testing.MockClock) -> None:
    report, to = Report(interval=60, now=lambda: 1000), Destination()
    began = trio.current_time()
    async with sending(report, to):
        report.started()
        await trio.sleep(1)
        assert to.names() == ["StartedTimestamp", "Status", "LastUpdatedTimestamp"]
        report.counts(succeeded=1, failed=0, parked=0)
        report.counts(succeeded=2, failed=1, parked=0)
        await trio.sleep(50)
        assert len(to.got) == 3
        await trio.sleep(20)
    assert [(n, v) for t, n, v in to.got[3:]] == [
        ("TasksTotal", 3),
        ("TasksSuccess", 2),
        ("TasksFailed", 1),
        ("LastUpdatedTimestamp", 1000),
    ]
    assert to.got[3][0] - began == pytest.approx(60, abs=2)


async def test_an_error_alone_goes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    report, to = Report(interval=60, now=lambda: 1000), Destination()
    async with sending(report, to):
        await trio.sleep(1)
        report.error("boom")
        await trio.sleep(1)
        assert to.names() == ["Error", "LastUpdatedTimestamp"]


async def test_what_cannot_be_sent_is_sent_later_in_its_newest_form(autojump_clock: trio.testing.MockClock) -> None:
    report, to = Report(interval=60), Destination(failing=True)
    async with sending(report, to):
        report.status(PilotStatus.STARTED)
        await trio.sleep(100)
        report.status(PilotStatus.TASKING)
        report.error("x")
        to.failing = False
        await trio.sleep(400)
    assert [value for _, name, value in to.got if name == "Status"] == ["Tasking"]
    assert to.names().count("Error") == 1


@pytest.mark.parametrize("failing", [False, True])
async def test_the_last_words_are_waited_for_but_not_for_ever(
    autojump_clock: trio.testing.MockClock, failing: bool
) -> None:
    report, to = Report(interval=60), Destination(failing=failing)
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with sending(report, to):
            report.status(PilotStatus.DONE)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert trio.current_time() - began == pytest.approx(10 if failing else 0, abs=0.1)
    assert ("Status" in to.names()) is not failing


async def test_a_secret_never_goes_out(autojump_clock: trio.testing.MockClock) -> None:
    from ewms.secret import Secret

    Secret("token-of-a-queue")
    report, to = Report(interval=60), Destination()
    async with sending(report, to):
        report.error("refused token-of-a-queue", "Traceback token-of-a-queue")
    assert "token-of-a-queue" not in str(to.got)
