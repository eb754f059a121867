"""Some job event logs, read together and without a TMS: what `ewms log` and `ewms top` show of them."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from ewms.tms.board import Board, TaskforceReport, day_of, report_on
from ewms.tms.eventlog.format import cut
from ewms.tms.eventlog.reader import BATCH, LONGEST_EVENT, Piece, Position, read_on
from ewms.tms.eventlog.tally import Tally
from ewms.tms.expiry import LOG_ARCHIVE_SUFFIX
from ewms.tms.log_sites import EVER
from ewms.tms.sites import SiteTally


class LogUnreadable(Exception):
    """A log cannot be read (any further); its text says first why, then which."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(f"{reason}: {path}")
        self.path = path


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError as error:  # gzip's word for an archive that is cut off
        raise LogUnreadable("the archive is cut off", path) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise LogUnreadable(f"the archive is damaged ({error})", path) from error
    except OSError as error:
        raise LogUnreadable(os.strerror(error.errno) if error.errno else str(error), path) from error


class DayLogs:
    """Logs and their archives; a taskforce that two of them speak of is one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        tallies = {path: Tally(day_of(path.name.removesuffix(LOG_ARCHIVE_SUFFIX))) for path in dict.fromkeys(paths)}
        # By their days: the memory of runs follows the events' time.
        self.tallies = dict(sorted(tallies.items(), key=lambda item: item[1].near))
        self.sites = SiteTally(EVER)
        self._board = Board()
        self._positions = dict.fromkeys(tallies, Position())
        self._archives = {path: pieces(path) for path in tallies if is_archive(path)}
        for path, tally in tallies.items():
            self._board.restore(f"{path.name} {path}", tally)

    @property
    def events(self) -> int:
        """Whole events read so far."""
        return sum(tally.events for tally in self.tallies.values())

    @property
    def damaged(self) -> int:
        """Stretches that are no events."""
        return sum(tally.damaged for tally in self.tallies.values())

    def reports(self) -> list[TaskforceReport]:
        """Every taskforce in the order of the logs.

        Clusters that nobody named appear as `cluster:ID`, and so do further clusters of one taskforce.
        """
        found: dict[str, TaskforceReport] = {}
        self._board.changed()
        for tally in self.tallies.values():
            for cluster in tally.clusters.values():
                key = f"cluster:{cluster.cluster_id}"
                report = self._board.report(cluster.uuid) if cluster.uuid else None
                if report is None or report.cluster_id != cluster.cluster_id:
                    report = report_on(key, cluster, None)
                found[report.uuid] = report
        return list(found.values())

    def feed(self, path: Path, data: bytes, *, again: bool = False) -> None:
        """Take whole events of one log, in its order; `again`: they may have been taken before."""
        tally = self.tallies[path]
        self.sites.take(tally.feed(data, again=again), tally.near)

    def read_all(self, tell: Callable[[int], object] = lambda _: None) -> list[LogUnreadable]:
        """Read every log to its end, or as far as it can be read; `tell` hears of the bytes. Returns the faults."""
        faults = []
        for path, tally in self.tallies.items():
            try:
                for data in pieces(path, tally):
                    self.feed(path, data)
                    tell(len(data))
            except LogUnreadable as fault:
                faults.append(fault)
        return faults

    def read_on(self, path: Path) -> int:
        """Take a log's next piece, some MB at most; how many bytes that were (0: no news); raises LogUnreadable."""
        if path in self._archives:
            piece = Piece(next(self._archives[path], b""), Position(), more=True)
        else:
            with _reading(path):
                piece = read_on(path, self._positions[path])
        self._positions[path] = piece.position
        self.tallies[path].damaged += bool(piece.skipped)
        self.feed(path, piece.data, again=piece.again)
        return len(piece.data) + piece.skipped

    def behind(self) -> int:
        """How many bytes of the logs that are there have not been read."""
        sizes = {path: path.stat().st_size for path in self._positions if path not in self._archives and path.exists()}
        return sum(max(0, size - self._positions[path].offset) for path, size in sizes.items())


def is_archive(path: Path) -> bool:
    """Whether a log is compressed: it does not grow any more."""
    return path.suffix == LOG_ARCHIVE_SUFFIX


def pieces(path: Path, tally: Tally | None = None) -> Iterator[bytes]:
    """Whole events; a partial one at the end is left out, and what cannot be an event is damage of the tally.

    Raises:
        LogUnreadable: it cannot be read, or an archive is cut or damaged.
    """
    with _reading(path), _open(path) as file:
        rest = b""
        while data := file.read(BATCH):
            rest += data
            end = cut(rest)
            if end:
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) >= LONGEST_EVENT:
                rest = rest[-4096:]
                if tally is not None:
                    tally.damaged += 1


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if is_archive(path) else path.open("rb")
