"""A file that hangs whoever opens it, as everything does on a file server that is gone."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hanging_file(path: Path) -> Iterator[None]:
    """Make an empty regular file; opening it waits until the end of this context, and then it is gone.

    The kernel grants it after 45 s (/proc/sys/fs/lease-break-time) all the same.

    Raises:
        FileExistsError: there is such a file.
        OSError: this file system grants no leases.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        # Who opens a file that another process has a lease on waits until that process gives it up. The kernel asks for
        # it by a signal: by one that nobody hears, SIGIO would end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)
