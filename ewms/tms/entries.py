"""One taskforce's entry in the ledger, and its text form (pure)."""

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from ewms.tms.errors import LedgerDamaged


@attrs.frozen(kw_only=True)
class Entry:
    """One taskforce. Times are epoch s, None for what has not happened."""

    taskforce_uuid: str
    log_path: str
    """The job event log that the submit names; midnight may pass before it is repeated."""
    n_workers: int
    intended_at: float
    cluster_id: int | None = None
    submit_dict: Mapping[str, str | int] = attrs.field(factory=dict)
    confirmed_at: float | None = None
    withdrawn_at: float | None = None
    withdrawn_clusters: tuple[int, ...] = ()
    """Of earlier attempts: removed, but they may be in the queue for long, and are in the history and the log."""
    stop_began_at: float | None = None
    """When the removal was about to be sent."""
    stopped_at: float | None = None
    """When the WMS accepted that."""
    ended_at: float | None = None
    """When the cluster ended, as told to the WMS."""
    completed_at: float | None = None
    """When the WMS accepted that."""

    @property
    def is_known(self) -> bool:
        """False of what stands for an entry that cannot be read: it says no moment."""
        return self.intended_at > 0

    @property
    def is_unsettled(self) -> bool:
        """There may be a cluster of which the WMS does not know."""
        return self.confirmed_at is None and self.withdrawn_at is None

    @property
    def former_clusters(self) -> tuple[int, ...]:
        """Clusters that must not be taken for the taskforce's own any more."""
        if self.withdrawn_at is None or self.cluster_id is None:
            return self.withdrawn_clusters
        return (*self.withdrawn_clusters, self.cluster_id)

    @property
    def has_open_stop(self) -> bool:
        """Its cluster may have been removed, and the WMS may not know that it was told to be."""
        return self.stop_began_at is not None and self.stopped_at is None and self.completed_at is None

    @property
    def has_open_end(self) -> bool:
        """It was confirmed, and the WMS may know that it has ended."""
        return self.confirmed_at is not None and self.withdrawn_at is None and self.completed_at is None

    @property
    def last_at(self) -> float:
        """When anything happened to this taskforce for the last time."""
        later = (self.confirmed_at, self.withdrawn_at, self.stop_began_at, self.stopped_at, self.completed_at)
        return max([self.intended_at, *(each for each in later if each is not None)])

    @property
    def over_at(self) -> float | None:
        """Since when nothing happens to this taskforce any more."""
        return self.withdrawn_at if self.completed_at is None else self.completed_at


def parse(content: bytes) -> Entry:
    """An entry from its file; unknown keys (a newer version's) are ignored. Raises `LedgerDamaged`."""
    try:
        return _converter.structure(json.loads(content), Entry)
    except (ValueError, TypeError, RecursionError, cattrs.BaseValidationError) as error:
        raise LedgerDamaged(f"{type(error).__name__}: not a ledger entry") from error


def serialize(entry: Entry) -> bytes:
    """The file of an entry."""
    return json.dumps(attrs.asdict(entry), indent=1).encode() + b"\n"


def _moment(value: Any, _: Any) -> float:
    moment = float(value)
    if not math.isfinite(moment):  # Python's JSON has NaN, which is neither before nor after anything
        raise ValueError("not a time")
    return moment


_converter = cattrs.Converter()
_converter.register_structure_hook(float, _moment)
# A submit description's values keep their types.
_converter.register_structure_hook(str | int, lambda value, _: value)
