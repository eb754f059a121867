"""A container's private places: directories in its scratch, with the names that Apptainer gives them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MODES: Final = {"tmp": 0o1777, "var_tmp": 0o1777, "home": 0o700}


def make(scratch: Path) -> None:
    """Make those that are not there, and give each its mode: a task before may have changed that."""
    for name, mode in MODES.items():
        path = f"{scratch}/{name}"
        with suppress(FileExistsError):
            os.mkdir(path)  # noqa: PTH102  three of these for each container
        os.chmod(path, mode)  # noqa: PTH101
