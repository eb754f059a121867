"""A day log that grows while it is watched to its end: `python -m tests.load.daylogs DIRECTORY`, and its writer."""

import sys
import time
from io import RawIOBase
from pathlib import Path

import daylog
import structlog
import trio

from ewms.contract import day_log_name
from ewms.tms.board import Board
from ewms.tms.watch import watch_logs
from tests.load.sampling import tell

NAME = day_log_name("2026-11-21")
_STEP_BYTES = 2 << 20
_FIRST, _TASKFORCES, _TWINS = 101, 5, 4
"""The first cluster, how many there are, and how many taskforces each of them is told of."""
_BYTES_PER_EVENT = 99.5  # the mean of `daylog`'s


def write(directory: Path, size: int) -> None:
    """Let the log grow to about so many bytes, a piece at a time.

    Each piece is told of further taskforces, too, under names of their own: to make all of it anew would take longer
    than to read it.
    """
    day = daylog.Day.of(round(size / _BYTES_PER_EVENT / _TWINS), taskforces=_TASKFORCES, workers=500)
    piece = bytearray()
    with (directory / NAME).open("ab", buffering=0) as log:
        for event in daylog.lines(day):
            piece += event
            if len(piece) >= _STEP_BYTES:
                _write_for_all(log, bytes(piece))
                piece.clear()
        _write_for_all(log, bytes(piece))
    (directory / "written").touch()


def _write_for_all(log: RawIOBase, piece: bytes) -> None:
    for twin in range(_TWINS):
        renamed = piece
        for old in range(_FIRST, _FIRST + _TASKFORCES):
            new = old + twin * 100
            renamed = renamed.replace(b" (%03d." % old, b" (%03d." % new)
            renamed = renamed.replace(daylog.uuid_of(old).encode(), daylog.uuid_of(new).encode())
        log.write(renamed)


async def main(directory: Path) -> None:
    """Watch it as the TMS does, and tell of oneself every second until all of it was read."""
    began, log = time.monotonic(), directory / NAME
    lag = [0]

    def tell_lag(size: int, _since: float) -> None:
        lag[0] = size

    async with trio.open_nursery() as nursery:
        state = directory / "state"
        await nursery.start(
            lambda task_status: watch_logs(
                directory, Board(), state_dir=state, poll=0.2, tell_lag=tell_lag, task_status=task_status
            )
        )
        while True:
            await trio.sleep(1)
            is_written = (directory / "written").exists()  # noqa: ASYNC240  this program does nothing else
            size = log.stat().st_size  # noqa: ASYNC240
            tell(began, (size - lag[0]) / 1e9)
            if is_written and not lag[0]:
                break
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    trio.run(main, Path(sys.argv[1]))
