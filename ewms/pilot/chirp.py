"""HTCondor's chirp, as much as a pilot needs: one attribute at a time, to the job event log, or to or from the job ad.

The protocol is one line each way over a local TCP connection. A newline in a line would run what follows as another
command, so that everything sent here is one line of printable ASCII. HTCondor cuts a log text after 1023 bytes, and
its reader after 985, so that a text is cut here, with its closing quote.
"""

from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.contract import MAX_CHIRP_BYTES, ChirpAttribute

TIMEOUT_S: Final = 15.0
"""For one call. The starter is single-threaded: a hung shadow makes it silent for 10 s."""
_MAX_REPLY: Final = 4096
_CUT: Final = " [...] "

Value = str | int


class ChirpError(Exception):
    """An attribute could not be sent; it may have arrived all the same."""


@attrs.frozen
class ChirpConfig:
    """Where the starter listens, and what it wants to see."""

    host: str
    port: int
    cookie: str = attrs.field(repr=False)


def read_config(path: Path) -> ChirpConfig:
    """Read the file that `_CONDOR_CHIRP_CONFIG` names.

    Raises:
        ChirpError: there is none, or it is not understood.
    """
    try:
        host, port, cookie = path.read_text().split()
        return ChirpConfig(host, int(port), cookie)
    except (OSError, ValueError) as error:
        raise ChirpError(f"no chirp configuration: {error}") from error


def log_line(name: ChirpAttribute, value: Value) -> str:
    """`NAME: "value"` as a log text of at most 900 bytes."""
    return f'{name}: "{quoted(str(value), MAX_CHIRP_BYTES - len(name) - 4)}"'


def attribute_value(value: Value) -> str:
    """`value` as a ClassAd literal of a job attribute."""
    return str(value) if isinstance(value, int) else f'"{quoted(value, MAX_CHIRP_BYTES)}"'


def quoted(text: str, limit: int) -> str:
    """`text` as the inside of a ClassAd string: printable ASCII, escaped, of at most `limit` bytes.

    What is too long loses its middle: the beginning says what it is, and a traceback ends with what matters.
    """
    parts = [_escaped(character) for character in text.strip()]
    if sum(map(len, parts)) <= limit:
        return "".join(parts)
    room = limit - len(_CUT)
    return _fitting(parts, room // 3) + _CUT + _fitting(parts[::-1], room - room // 3, backwards=True)


def _fitting(parts: list[str], room: int, *, backwards: bool = False) -> str:
    kept: list[str] = []
    for part in parts:
        room -= len(part)
        if room < 0:
            break
        kept.append(part)
    return "".join(kept[::-1] if backwards else kept)


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": " ", "\r": ""}


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if " " <= character <= "~" else "?"


def command_word(text: str) -> str:
    """`text` as one word of a chirp command."""
    return text.replace("\\", "\\\\").replace(" ", "\\ ")


class ChirpClient:
    """One connection, opened when it is first needed and again after an error. One call at a time."""

    def __init__(self, config_file: Path, *, to_log: bool) -> None:
        self._config_file = config_file
        self._command = _ulog if to_log else _set_job_attr
        self._stream: trio.SocketStream | None = None

    async def set(self, name: ChirpAttribute, value: Value) -> None:
        """Send one attribute.

        Raises:
            ChirpError: it is not known to have arrived.
        """
        await self._bounded(self._command(name, value))

    async def get(self, name: str) -> str:
        """The text of an attribute of the job's ad as it is now, `UNDEFINED` when there is none.

        Raises:
            ChirpError: nobody answered, or the job may not ask.
        """
        return await self._bounded(f"get_job_attr {name}", has_value=True)

    async def _bounded(self, command: str, *, has_value: bool = False) -> str:
        answered = False
        try:
            with trio.fail_after(TIMEOUT_S):
                value = await self._call(command, has_value=has_value)
            answered = True
        except trio.TooSlowError:
            raise ChirpError(f"chirp did not answer within {TIMEOUT_S:g} s") from None
        except (OSError, ValueError, trio.BrokenResourceError) as error:  # ValueError: a host or a length of nonsense
            raise ChirpError(f"chirp failed: {error}") from error
        finally:
            if not answered:
                self.close()  # a late answer must not be taken for that of the next call
        return value

    def close(self) -> None:
        """Forget the connection."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    async def _call(self, command: str, *, has_value: bool) -> str:
        if self._stream is None:
            config = read_config(self._config_file)
            self._stream = await trio.open_tcp_stream(config.host, config.port)
            await _exchange(self._stream, f"cookie {config.cookie}")
        return await _exchange(self._stream, command, has_value=has_value)


async def _exchange(stream: trio.SocketStream, command: str, *, has_value: bool = False) -> str:
    """The value that comes with the answer, where one does: the line before it has its length."""
    await stream.send_all(command.encode("ascii", "replace") + b"\n")
    reply = b""
    while b"\n" not in reply:
        reply = await _more(stream, reply)
    number, _, value = reply.partition(b"\n")
    if not number.strip().isdigit():
        raise ChirpError(f"the chirp server refused: {number.strip().decode(errors='replace')}")
    if not has_value:
        return ""
    while len(value) < int(number):
        value = await _more(stream, value)
    return value[: int(number)].decode(errors="replace")


async def _more(stream: trio.SocketStream, reply: bytes) -> bytes:
    data = await stream.receive_some(_MAX_REPLY)
    if not data or len(reply) > _MAX_REPLY:
        raise ChirpError("the chirp server closed the connection")
    return reply + data


def _ulog(name: ChirpAttribute, value: Value) -> str:
    return f"ulog {command_word(log_line(name, value))}"


def _set_job_attr(name: ChirpAttribute, value: Value) -> str:
    return f"set_job_attr {name} {command_word(attribute_value(value))}"
