"""Lines of docs/security.md that need nothing but Python."""

import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from ewms.pilot.brokers.localstore import _locked
from ewms.pilot.containers.docker import _make_scratch
from ewms.testing.cli import _write_private
from ewms.testing.wms.store import Store
from ewms.tms.directory_archive import pack_directory
from ewms.tms.packing import Disk
from ewms.tms.page import serve_pages
from ewms.tms.starting import _write_envfile
from ewms.tms.submission import Submission

TOKEN = "TOKEN-FOR-TESTS"


# --- files with secrets are private from their first byte ---


def envfile(directory: Path) -> Path:
    path = directory / "taskforce" / "ewms_htcondor_envfile.sh"
    _write_envfile(
        Submission(
            taskforce_uuid="TF-1",
            n_workers=1,
            log_path=directory / "log",
            description={},
            expressions={},
            numbers=(),
            envfile_path=path,
            envfile=f"export A={TOKEN}\n",
        )
    )
    return path


def archive_of_a_taskforce(directory: Path) -> Path:
    source = directory / "ewms-taskforce-TF-1"
    source.mkdir()
    (source / "0.out").write_text(TOKEN)
    return pack_directory(source, Disk(), lambda _bytes: None).archive


def environment_for_docker(directory: Path) -> Path:
    path = directory / "environment"
    _make_scratch(directory, path, f"A={TOKEN}\n")
    return path


def queue_of_the_embedded_broker(directory: Path) -> Path:
    with _locked(directory / "lock"):
        return directory / "lock"


def documents_of_the_stand_in(directory: Path) -> Path:
    Store(directory / "wms.db").close()
    return directory / "wms.db"


def token_files_of_the_stand_in(directory: Path) -> Path:
    _write_private(directory / "token", [TOKEN])
    return directory / "token"


WRITERS: list[Callable[[Path], Path]] = [
    envfile,
    archive_of_a_taskforce,
    environment_for_docker,
    queue_of_the_embedded_broker,
    documents_of_the_stand_in,
    token_files_of_the_stand_in,
]


class Watched:
    """The modes that are changed after a file was made: audit hooks cannot be taken away, so one serves all tests."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._thread: int | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.chmod" and threading.get_ident() == self._thread:
            self.changes.append(str(arguments))

    def __enter__(self) -> None:
        self.changes, self._thread = [], threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._thread = None


WATCHED = Watched()


@pytest.fixture
def generous_umask() -> Iterator[None]:
    """Nothing is private by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous_umask")
@pytest.mark.parametrize("write", WRITERS, ids=lambda each: str(each.__name__))
def test_files_with_secrets_are_private_from_their_first_byte(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """They are private at the end, whatever the umask, and no mode was changed on the way: so they were made so."""
    with WATCHED:
        path = write(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert WATCHED.changes == []


def test_a_changed_mode_would_be_seen(tmp_path: Path) -> None:
    """The test above watches what it says."""
    with WATCHED, (tmp_path / "x").open("w") as file:
        os.fchmod(file.fileno(), 0o600)
        (tmp_path / "x").chmod(0o600)
    assert len(WATCHED.changes) == 2


# --- the status pages ---

LISTENS = "0A"


def listening_at(port: int) -> set[str]:
    """The local addresses of the kernel's own tables, as they stand there."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    return {line[1] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == LISTENS}


async def test_the_status_pages_are_on_loopback_only(nursery: trio.Nursery) -> None:
    port = await nursery.start(serve_pages, lambda _path: None, 0)
    (address,) = listening_at(port)
    assert socket.inet_ntoa(int(address.partition(":")[0], 16).to_bytes(4, sys.byteorder)) == "127.0.0.1"
    nursery.cancel_scope.cancel()
