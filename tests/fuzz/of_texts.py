"""Texts that the pilot reads and tells: chirps, stderr, ads, tokens, settings."""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import attrs
import classad2

from ewms.contract import MAX_CHIRP_BYTES, ChirpAttribute
from ewms.pilot import checks, lease, place
from ewms.pilot.chirp import attribute_value, command_word, log_line
from ewms.pilot.excerpt import exception_name, excerpt
from ewms.pilot.settings import PilotSettings
from ewms.pilot.settings import read as read_pilot
from ewms.pilot.tokens import token_expiry
from ewms.secret import Secret
from ewms.settings import SettingsError, variables
from ewms.testing.schedd.chirp import words
from ewms.tms.eventlog.format import classad_value, cut, frames
from ewms.tms.settings import Settings
from ewms.tms.settings import read as read_tms
from tests.fuzz.source import Source
from tests.fuzz.target import Target

_HIDDEN: Final = "hidden-value-of-a-secret"


def chirps(data: bytes) -> None:
    """A text to chirp: one word of one line, one event of the log, and as much of the text as there is room for."""
    source = Source(data)
    text = source.text(12) if source.chance() else source.rest().decode("utf-8", "replace")
    name = source.choice(list(ChirpAttribute))
    line = log_line(name, text)
    assert len(line) <= MAX_CHIRP_BYTES
    assert line.isascii()
    assert line.isprintable()
    assert words(f"ulog {command_word(line)}".encode()) == ["ulog", line]
    literal = attribute_value(text)
    assert words(f"set_job_attr {name} {command_word(literal)}".encode()) == ["set_job_attr", str(name), literal]
    assert isinstance(classad2.ExprTree(literal).eval(), str), "HTCondor reads no string"
    event = f"008 (036.000.000) 2026-11-21 21:10:28 {line}\n...\n".encode()
    after = b"005 (036.000.000) 2026-11-21 21:10:29 Job terminated.\n\t(1) Normal termination\n...\n"
    assert cut(event) == len(event)
    assert [each[1] for each in frames(event + after).events if each[1] != b"008"] == [b"005"]
    if all(" " <= char <= "~" for char in text) and len(text) < MAX_CHIRP_BYTES // 3:
        assert classad_value(line.partition(": ")[2].encode()) == text.strip()


def stderr(data: bytes) -> None:
    """A task's stderr: one text that says what went wrong."""
    text = Source(data).text(12) if data[:1] < b"\x80" else data.decode("utf-8", "replace")
    assert isinstance(excerpt(text), str)
    assert excerpt(text)
    assert isinstance(exception_name(text), str)


def ads(data: bytes) -> None:
    """The job's and the machine's ads: what they limit, and what was not understood."""
    source = Source(data)
    names = ("JobMaxVacateTime", "AllowedExecuteDuration", "GLIDEIN_ToDie", "TimeToLive", "Machine", "GLIDEIN_Site")
    texts = ["\n".join(f"{source.choice(names)} = {source.text()}" for _ in range(3)), source.text(9)]
    found = lease.read(texts[0], texts[1], 1000.0)
    assert found.grace >= 0
    assert found.ends is None or found.ends > 0
    for text in texts:
        assert all(isinstance(each, str) for each in place.read(text))


def tokens(data: bytes) -> None:
    """A queue's token: when it ends, or None."""
    source = Source(data)
    claims = source.json_bytes({"exp": source.json(0), "x": source.json()})
    payload = source.text() if source.chance(4) else base64.urlsafe_b64encode(claims).decode().rstrip("=")
    ends = token_expiry(Secret(f"header.{payload}.signature"))
    assert ends is None or isinstance(ends, float)


_KINDS: Final[tuple[tuple[Any, Any, dict[str, str]], ...]] = (
    (Settings, read_tms, {"EWMS_ADDRESS": "http://wms", "TMS_NO_AUTH": "1", "JOB_EVENT_LOG_DIR": "/x"}),
    (PilotSettings, read_pilot, {"EWMS_PILOT_TASK_IMAGE": "i", "EWMS_PILOT_QUEUE_INCOMING": "q"}),
)
_VALUES: Final = ("", "0", "-1", "1e999", "nan", "yes", "a;b", "a=b;c", "{}", '{"A": 1}', "[", "/x", "(", "none", "1 2")


def settings(data: bytes) -> None:
    """An environment: the settings, or `SettingsError` with a line for each problem and no secret in it."""
    source = Source(data)
    cls, read, environ = source.choice(_KINDS)
    environ = dict(environ)
    names = [(variable.name, field.type is Secret) for field, variable in variables(cls)]
    for _ in range(source.integer(1, 6)):
        name, is_secret = source.choice(names)
        environ[name] = source.choice(_VALUES) if source.chance() else source.text()
        if is_secret:
            environ[name] = f"{_HIDDEN}{environ[name]}"
    try:
        found = read(environ)
    except SettingsError as error:
        assert error.problems
        assert _HIDDEN not in str(error)
        return
    assert _HIDDEN not in repr(found)
    if isinstance(found, PilotSettings):
        _complete(found)


def _complete(found: PilotSettings) -> None:
    for direction in checks.DIRECTIONS:
        for queue in checks.queues(direction, attrs.asdict(found, recurse=False)):
            assert queue.queue
    assert found.slots >= 1
    assert all(path.is_absolute() for path in found.external)
    assert all(isinstance(line, str) for line in found.warnings)


def _choices() -> Iterator[bytes]:
    for number in range(0, 250, 10):
        yield bytes((number + 5 * step * step) % 256 for step in range(60))
    yield json.dumps({"exp": 1}).encode()


def _stderrs() -> Iterator[bytes]:
    yield "é\nTraceback (most recent call last):\n  File x\nValueError: y\n".encode()
    yield b"\xffbwrap: no\n"
    yield from _choices()


TARGETS: Final = (
    Target("chirps", "texts that pilots chirp", chirps, _choices),
    Target("stderrs", "what failed tasks wrote", stderr, _stderrs),
    Target("ads", "the ads of job and machine", ads, _choices),
    Target("tokens", "tokens of queues", tokens, _choices),
    Target("settings", "settings of both services", settings, _choices),
)
