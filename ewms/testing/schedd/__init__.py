"""An embedded schedd: a daemon that honours submit descriptions on this machine and writes a true job event log.

Workers are local processes without isolation. It is for tests, for the demo, and for machines without HTCondor; the
same contract tests run against it and against a real pool (`tests/contract/test_schedd.py`).

Not honoured: `output` while the worker runs (files come at its end), spooling of a sandbox on eviction, credentials,
file transfer plugins, item data. The state is in memory: it outlives the TMS, not the daemon.
"""

import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

_READY_TIMEOUT: Final = 30
_END_TIMEOUT: Final = 20


class EmbeddedScheddFailed(Exception):
    """The daemon did not start, or ended with an error; its log says more."""


@attrs.frozen
class EmbeddedSchedd:
    """A running embedded schedd."""

    directory: Path
    name: str
    """The access point's name."""
    helper_command: list[str]
    """For `ewms.tms.condor.schedd.open_schedd`."""
    pid: int


def default_entrypoint() -> list[str]:
    """What a pilot image would run: the pilot of this very installation, with the envfile's environment."""
    return ["/bin/sh", str(Path(__file__).with_name("entrypoint.sh")), sys.executable]


@asynccontextmanager
async def open_embedded_schedd(
    directory: Path,
    *,
    slots: int = 4,
    entrypoint: Sequence[str] | None = None,
    name: str = "embedded.example.org",
    machine: Mapping[str, str] | None = None,
    policy_interval: float = 1.0,
) -> AsyncIterator[EmbeddedSchedd]:
    """Start the daemon in `directory`; it and all workers end with the context, or when this process dies.

    `entrypoint` is what a worker runs, by default the pilot; `machine` adds attributes (expressions) to the machine
    ad; `policy_interval` is in s.

    Raises:
        EmbeddedScheddFailed: it did not start, or had crashed by the end.
    """
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  once
    log_path = directory / "schedd.log"
    command = [sys.executable, "-m", __name__, "--tied", "--dir", str(directory), "--slots", str(slots)]
    command += ["--name", name, "--policy-interval", str(policy_interval)]
    command += ["--entrypoint", shlex.join(entrypoint or default_entrypoint())]
    for attribute, text in (machine or {}).items():
        command += ["--machine", f"{attribute}={text}"]
    with log_path.open("ab") as log:
        # A session of its own: Ctrl-C is for the opener, which ends it in order.
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    try:
        await _until_ready(process, log_path)
        helper = str(Path(__file__).with_name("helper.py"))
        # Isolated from site-packages, it starts in a few milliseconds.
        helper_command = [sys.executable, "-I", "-S", helper, "--socket", str(directory / "schedd.sock")]
        yield EmbeddedSchedd(directory, name, helper_command, process.pid)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_TIMEOUT + 5):
            await _end(process)
    if process.returncode is not None and process.returncode > 0:  # who killed it knows that
        raise EmbeddedScheddFailed(f"the embedded schedd ended with status {process.returncode}; see {log_path}")


async def _until_ready(process: trio.Process, log_path: Path) -> None:
    assert process.stdout is not None
    words = b""
    with trio.move_on_after(_READY_TIMEOUT):
        # In pieces: an unbuffered interpreter writes the new-line by itself.
        while not words.endswith(b"\n") and (piece := await process.stdout.receive_some()):
            words += piece
        if words == b"ready\n":
            return
    last_words = (await trio.Path(log_path).read_text())[-2000:]
    raise EmbeddedScheddFailed(f"the embedded schedd did not start; see {log_path}:\n{last_words}")


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(_END_TIMEOUT) as scope:
        await process.wait()
    if scope.cancelled_caught:
        process.kill()
        await process.wait()
    await process.stdout.aclose()
