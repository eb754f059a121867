"""The private places of a container."""

import errno
import os
import stat
from pathlib import Path

import pytest

from ewms.pilot.containers import scratch
from ewms.pilot.containers.base import ContainerError


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_they_have_their_modes_whatever_a_task_before_did(tmp_path: Path) -> None:
    scratch.make(tmp_path)
    (tmp_path / "tmp").chmod(0)
    (tmp_path / "home").rmdir()
    scratch.make(tmp_path)
    assert modes(tmp_path) == scratch.MODES


def test_a_full_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but a `ContainerError` would end the pilot as a bug of its own, also in the middle of tasks."""

    def full(path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(ContainerError, match="No space left"):
        scratch.make(tmp_path)
