"""The directory that a command works in: logs and all that runs in it; kept where something was wrong."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def in_new_directory(prefix: str, work: Callable[[Path], int], *, keep: bool) -> int:
    """Do the work in a directory that everybody can read; its exit status. The directory goes if that is 0."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)
    status = work(directory)
    if status == 0 and not keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"logs: {directory}")
    return status
