"""What follows from what was found: the decisions of starting, stopping and reporting (pure)."""

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from ewms.tms.entries import Entry
from ewms.wms.models import Phase, Taskforce

CLOCK_MARGIN: Final = 3600.0
"""By how much, in s, the clocks of the WMS and of this access point may differ."""
_OF_FACTORIES: Final = ("max_idle", "max_materialize")
"""Submit commands that make a cluster a job factory."""


@attrs.frozen
class Cluster:
    """A cluster that exists, or existed, for a taskforce."""

    cluster_id: int
    log_path: str
    n_workers: int
    submit_dict: dict[str, str | int] = attrs.field(factory=dict)


class Standing(enum.Enum):
    """What a start order is worth by now."""

    WANTED = "wanted"
    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"


def standing(taskforce: Taskforce | None, cluster_id: int | None) -> Standing:
    """Judge a re-check: the WMS's view of the taskforce (None: it does not know it), and our cluster, if there is one.

    A cluster id there that is ours means that an earlier confirm arrived and only its answer was lost.
    """
    if taskforce is None:
        return Standing.WITHDRAWN
    if taskforce.cluster_id is not None:
        return Standing.CONFIRMED if taskforce.cluster_id == cluster_id else Standing.WITHDRAWN
    return Standing.WANTED if taskforce.phase == Phase.PENDING_STARTER else Standing.WITHDRAWN


def standing_after_404(taskforce: Taskforce | None, cluster_id: int) -> Standing:
    """Judge a confirm that met 404: it is confirmed, or else the cluster is not wanted."""
    seen = standing(taskforce, cluster_id)
    return seen if seen is Standing.CONFIRMED else Standing.WITHDRAWN


def must_look_back(entry: Entry | None, ordered_at: float, ledger_created_at: float) -> bool:
    """Whether a cluster may exist that is not in the queue any more: an earlier attempt's, or an earlier tool's."""
    return entry is not None or ordered_at < ledger_created_at + CLOCK_MARGIN


def choose(clusters: Iterable[Cluster], confirmed: int | None) -> tuple[Cluster | None, tuple[Cluster, ...]]:
    """Of several clusters of one taskforce the `confirmed` one, or else the oldest, to keep, and those to remove."""
    in_order = sorted(clusters, key=lambda cluster: (cluster.cluster_id != confirmed, cluster.cluster_id))
    return (in_order[0], tuple(in_order[1:])) if in_order else (None, ())


def as_intended(cluster: Cluster, entry: Entry | None) -> Cluster:
    """A cluster that was found, with what the intent on disk says about it and queue, history or log do not."""
    if entry is None:
        return cluster
    return attrs.evolve(
        cluster,
        n_workers=cluster.n_workers or entry.n_workers,
        submit_dict=cluster.submit_dict or dict(entry.submit_dict),
    )


def jobs_met(n_met: int, submit_dict: Mapping[str, object]) -> int:
    """Of what an action met in a cluster, the jobs: of a job factory HTCondor counts the cluster's own ad, too."""
    return max(0, n_met - any(name in submit_dict for name in _OF_FACTORIES))


class StopOutcome(enum.Enum):
    """What came of a stop order."""

    REMOVED = "removed"
    NOTHING_LEFT = "nothing left"
    ELSEWHERE = "elsewhere"
    """The taskforce has a cluster in the queue, but not the one that the WMS names."""


def stop_outcome(n_removed: int, cluster_id: int, in_queue: Iterable[int]) -> StopOutcome:
    """Judge a removal by how many ads it met and by the taskforce's clusters that are in the queue."""
    queued = set(in_queue)
    if n_removed or cluster_id in queued:  # there already, an earlier order's removal is under way
        return StopOutcome.REMOVED
    return StopOutcome.ELSEWHERE if queued else StopOutcome.NOTHING_LEFT
