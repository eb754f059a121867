"""Find the cluster that a taskforce has already: in the queue, in the history, in a job event log.

An answer is the truth or there is none: a schedd that does not answer raises `CondorUnreachable`, it never means
"not there".
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import trio

from ewms.contract import TASKFORCE_ATTRIBUTE
from ewms.tms.condor.base import Ad, Schedd
from ewms.tms.decisions import Cluster
from ewms.tms.errors import OrderRefused
from ewms.tms.files import TROUBLES_OF_THE_MACHINE
from ewms.tms.submit_language import classad_string

_PROJECTION: Final = ("ClusterId", "UserLog", "TotalSubmitProcs")
_SUBMIT_EVENT: Final = re.compile(rb"(?:000|035) \((\d+)\.")
_TERMINATOR: Final = b"..."


def belongs_to(uuid: str) -> str:
    """The constraint for a taskforce's jobs."""
    return f"{TASKFORCE_ATTRIBUTE} == {classad_string(uuid)}"


def exactly(uuid: str, cluster_id: int) -> str:
    """The constraint for one cluster of one taskforce: an id alone may be somebody else's, or a former queue's."""
    return f"ClusterId == {cluster_id} && {belongs_to(uuid)}"


async def in_queue(schedd: Schedd, uuid: str, former: Collection[int] = ()) -> list[Cluster]:
    """The taskforce's clusters in the queue, a factory that has no job yet (or any more) included.

    `former` clusters, here and below, are not looked for.
    """
    constraint = f"{belongs_to(uuid)} && ProcId =?= undefined"
    ads = await schedd.query(constraint, _PROJECTION, cluster_ads=True)
    return [cluster for cluster in map(_cluster, ads) if cluster.cluster_id not in former]


async def in_history(schedd: Schedd, uuid: str, former: Collection[int] = ()) -> list[Cluster]:
    """The taskforce's newest cluster of which the history knows a job (reads the whole history when there is none)."""
    others = "".join(f" && ClusterId != {each}" for each in former)
    ads = await schedd.history(f"{belongs_to(uuid)}{others}", _PROJECTION, match=1)
    return [cluster for cluster in map(_cluster, ads) if cluster.cluster_id not in former]


async def in_log(path: Path, uuid: str, former: Collection[int] = ()) -> list[Cluster]:
    """The taskforce's clusters that the log names; a factory that was removed without a job is only there.

    Raises:
        OrderRefused: this log cannot be read, and may know a cluster that nobody else knows any more.
        OSError: no file can be read now; this one may be all right.
    """
    ids = await trio.to_thread.run_sync(_read_log, path, uuid)
    return [Cluster(cluster_id, str(path), 0) for cluster_id in ids if cluster_id not in former]


def clusters_in_lines(lines: Iterable[bytes], uuid: str) -> list[int]:
    """The clusters whose submit events in a job event log bear the taskforce's UUID as a note (pure)."""
    wanted = re.compile(rb"(?<![\w-])%s(?![\w-])" % re.escape(uuid.encode()))
    found: dict[int, None] = {}
    cluster: int | None = None
    for line in lines:
        if line.rstrip() == _TERMINATOR:
            cluster = None
        elif match := _SUBMIT_EVENT.match(line):
            cluster = int(match.group(1))
        elif cluster is not None and TASKFORCE_ATTRIBUTE.encode() in line and wanted.search(line):
            found[cluster] = None
    return list(found)


def _read_log(path: Path, uuid: str) -> list[int]:
    try:
        with path.open("rb") as file:
            return clusters_in_lines(file, uuid)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in TROUBLES_OF_THE_MACHINE:
            raise
        raise OrderRefused(f"an earlier attempt may have a cluster in a log that cannot be read: {error}") from error


def _cluster(ad: Ad) -> Cluster:
    cluster_id, log_path, n_procs = (ad.get(name) for name in _PROJECTION)
    assert isinstance(cluster_id, int)  # every job ad has it
    return Cluster(
        cluster_id,
        log_path if isinstance(log_path, str) else "",
        n_procs if isinstance(n_procs, int) else 0,
    )
