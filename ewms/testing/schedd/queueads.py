"""What a job's or a cluster's ad says to those who ask, and on its submit events."""

from collections.abc import Iterable
from typing import Any

from ewms.testing.schedd.jobs import Cluster, Status
from ewms.testing.schedd.logtext import literal
from ewms.tms.condor.ads import plain
from ewms.tms.condor.base import Ad


def refreshed(cluster: Cluster) -> Any:
    """The ad of a cluster, with how its jobs are now."""
    counts = [job.status for job in cluster.jobs.values()]
    ad = cluster.ad
    ad["JobsPresent"] = len(counts)
    for name, status in (("JobsIdle", Status.IDLE), ("JobsRunning", Status.RUNNING), ("JobsHeld", Status.HELD)):
        ad[name] = counts.count(status)
    if cluster.description.is_factory:
        ad["JobMaterializeNextProcId"] = cluster.next_proc
        ad["JobMaterializePaused"] = int(cluster.pause_reason is not None)
        ad["JobMaterializePauseReason"] = cluster.pause_reason or ""
    return ad


def notes(ad: Any) -> list[str]:
    """The notes on a submit event; HTCondor 25 drops the plain one when there is anything structured to write."""
    names = [*listed(ad.get("SubmitEventNotesAttrs", "")), "JobBatchName"]
    structured = [f"{name} = {literal(ad[name])}" for name in names if name in ad]
    first = f"[ {'; '.join(structured)} ]" if structured else ad.get("SubmitEventNotes")
    return [note for note in (first, ad.get("SubmitEventUserNotes")) if note]


def listed(text: str) -> list[str]:
    """What a list of attribute names in a submit command holds."""
    return text.replace(",", " ").split()


def projected(ad: Any, projection: Iterable[str]) -> Ad:
    """The attributes that were asked for; none asked for means all."""
    wanted = {name.lower() for name in projection}
    return plain(ad, [name for name in ad if name.lower() in wanted] if wanted else ad)
