"""Entries of the ledger whose taskforce the WMS has deleted: nobody will ever say that they are over.

One is forgotten when nothing has happened to it for long, the WMS neither lists nor knows it, and the schedd knows
neither its cluster nor its UUID. Whoever does not answer keeps it.
"""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, Protocol

from ewms.contract import TASKFORCE_ATTRIBUTE
from ewms.tms.condor.base import Ad, JobQueue
from ewms.tms.entries import Entry
from ewms.tms.ledger import Ledger
from ewms.wms.errors import WMSNotFound
from ewms.wms.models import Taskforce

_AT_ONCE: Final = 500
"""Taskforces that one question names."""
_PROJECTION: Final = ("ClusterId", TASKFORCE_ATTRIBUTE)


class KnowsTaskforces(Protocol):
    """What is needed of the WMS's client."""

    def query_taskforces(self, query: dict[str, Any], projection: Sequence[str]) -> Awaitable[list[dict[str, Any]]]:
        """Every taskforce that matches."""

    def taskforce(self, uuid: str) -> Awaitable[Taskforce]:
        """The taskforce; raises `WMSNotFound`."""


def unfinished(entries: Iterable[Entry], before: float) -> list[Entry]:
    """Entries that wait for their end, and to which nothing has happened since before this epoch s (pure)."""
    return [entry for entry in entries if entry.has_open_end and entry.last_at < before]


def gone(entries: Iterable[Entry], ads: Iterable[Ad]) -> list[Entry]:
    """Entries of which the schedd's clusters know nothing (pure)."""
    known = {value for ad in ads for name in _PROJECTION if (value := ad.get(name)) is not None}
    return [
        entry
        for entry in entries
        if known.isdisjoint({entry.taskforce_uuid, entry.cluster_id, *entry.withdrawn_clusters})
    ]


async def forget_deleted(
    ledger: Ledger, schedd: JobQueue, wms: KnowsTaskforces, before: float, *, at_most: int
) -> list[str]:
    """Forget such entries, at most so many; returns their taskforces.

    Raises:
        WMSError, CondorError: somebody does not say whether they are over.
        OSError: the ledger cannot be read or changed.
    """
    old = unfinished(await ledger.entries(), before)
    listed = await _listed(wms, old)
    unlisted = [entry for entry in old if entry.taskforce_uuid not in listed]
    if not unlisted:
        return []
    ads = await schedd.query("ProcId =?= undefined", _PROJECTION, cluster_ads=True)
    forgotten = []
    for entry in gone(unlisted, ads)[:at_most]:
        try:
            await wms.taskforce(entry.taskforce_uuid)
        except WMSNotFound:
            await ledger.forget(entry.taskforce_uuid)
            forgotten.append(entry.taskforce_uuid)
    return forgotten


async def _listed(wms: KnowsTaskforces, entries: Sequence[Entry]) -> set[str]:
    found = set()
    for start in range(0, len(entries), _AT_ONCE):
        uuids = [entry.taskforce_uuid for entry in entries[start : start + _AT_ONCE]]
        listed = await wms.query_taskforces({"taskforce_uuid": {"$in": uuids}}, ["taskforce_uuid"])
        found |= {each["taskforce_uuid"] for each in listed}
    return found
