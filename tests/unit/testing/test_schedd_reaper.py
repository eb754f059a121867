"""The process around an embedded worker: an order that comes while the worker is being started is not lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ewms.testing.schedd import reaper

PATIENCE_S = 60


@pytest.mark.parametrize(("order", "number"), [("term", signal.SIGTERM), ("kill", signal.SIGKILL)])
@pytest.mark.parametrize("_again", range(3))
def test_a_worker_that_is_stopped_while_it_starts_ends(order: str, number: int, _again: int, tmp_path: Path) -> None:
    spec = {
        "argv": ["/bin/sleep", "600"],
        "env": {},
        "cwd": str(tmp_path),
        "stdout": str(tmp_path / "out"),
        "stderr": str(tmp_path / "err"),
        "orphaned": str(tmp_path / "orphaned"),
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # In one piece: the second is read as soon as the worker is forked, before that is a program of its own.
        process.stdin.write(f"{json.dumps(spec)}\n{order}\n")
        process.stdin.flush()
        with_ended = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        with_ended = None
        process.stdin.close()  # it kills its worker then
    assert with_ended == 0
    started, ended = process.stdout.read().splitlines()
    assert started.startswith("started ")
    assert os.waitstatus_to_exitcode(int(ended.split()[1])) == -number
    process.stdin.close()
    process.stdout.close()
