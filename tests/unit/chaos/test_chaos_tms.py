"""The TMS under chaos is started again whenever it ends, and an end that nobody caused is noted."""

import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.chaos.tms import TmsKeeper, kept

PATIENCE_S = 60
SILENT = "import time; time.sleep(600)"
TALKS = "import time; print('running', flush=True); time.sleep(600)"
ORDERLY = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit()); print('running', flush=True); time.sleep(600)"
)


async def ends_of(program: str, number: int, directory: Path) -> list[str]:
    """What is noted when a TMS that is such a program gets the signal once."""
    keeper = TmsKeeper([sys.executable, "-c", program, "tms"], {}, directory / "tms.log")
    async with kept(keeper):
        with trio.fail_after(PATIENCE_S):
            while not keeper.pids or (program != SILENT and not keeper.log.stat().st_size):  # noqa: ASYNC110  another process
                await trio.sleep(0.05)
            first = keeper.pids
            keeper.signal(number, first)
            while not keeper.pids or keeper.pids == first:  # noqa: ASYNC110
                await trio.sleep(0.05)
        return list(keeper.wrong_ends)


@pytest.mark.parametrize(
    ("program", "number"),
    [(SILENT, signal.SIGTERM), (ORDERLY, signal.SIGTERM), (TALKS, signal.SIGKILL)],
    ids=["sigterm-while-python-starts", "sigterm-to-a-running-one", "sigkill"],
)
async def test_what_we_caused_is_not_its_own_end(program: str, number: int, tmp_path: Path) -> None:
    assert await ends_of(program, number, tmp_path) == []


@pytest.mark.parametrize(
    ("program", "number"),
    [(TALKS, signal.SIGTERM), (TALKS, signal.SIGUSR1)],
    ids=["sigterm-that-it-should-obey", "a-signal-that-nobody-should-send"],
)
async def test_any_other_end_is_noted(program: str, number: int, tmp_path: Path) -> None:
    (said,) = await ends_of(program, number, tmp_path)
    assert f"the TMS ended by itself, with status -{number:d}" in said
