"""A container's private places: directories in its scratch, with the names that Apptainer gives them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from ewms.pilot.containers.base import ContainerError

MODES: Final = {"tmp": 0o1777, "var_tmp": 0o1777, "home": 0o700}


def make(scratch: Path) -> None:
    """Make those that are not there, and give each its mode: a task before may have changed that.

    Raises:
        ContainerError: that is not possible; the disk may be full.
    """
    try:
        for name, mode in MODES.items():
            _make(f"{scratch}/{name}", mode)
    except OSError as error:
        raise ContainerError(f"cannot make a directory in {scratch}: {error.strerror}") from error


def _make(path: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102  three of these for each container
    os.chmod(path, mode)  # noqa: PTH101
