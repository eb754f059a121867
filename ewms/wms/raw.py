"""What raw answers of the WMS tell: entries of a phase log, results of a batch, pages. Pure.

They are read from raw JSON, not from models: a taskforce that is malformed elsewhere must still be reportable.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ewms.wms.errors import WMSMalformed
from ewms.wms.models import Phase

_TYPES: Final[Mapping[str, type]] = {
    "taskforce_uuid": str,
    "phase": str,
    "cluster_id": int,
    "n_workers": int,
    "job_event_log_fpath": str,
    "top_task_errors": dict,
    "phase_change_log": list,
}
"""Of what is asked for in queries."""
_LATEST: Final = 1e11
"""A time (epoch s) that no clock will tell; JSON's numbers have no end."""


def misfit(taskforce: Mapping[str, Any], projection: Sequence[str]) -> str | None:
    """What is wrong with a taskforce that a query gave, as far as it was asked for; None: nothing."""
    for name in projection:
        value, kind = taskforce.get(name), _TYPES.get(name)
        if kind is not None and type(value) is not kind and (value is not None or name == "taskforce_uuid"):
            return f"{name}: expected {kind.__name__}, got {type(value).__name__}"
    return None


def count_failures(taskforce: Any, target: str) -> int:
    """How many failed attempts at the phase `target` the taskforce's log holds."""
    return sum(1 for entry in _entries(taskforce) if _is(entry, target, succeeded=False))


def is_completed(taskforce: Any, condor_complete_ts: int) -> bool:
    """Whether the completion at this time has arrived (a late `condor-rm` may have changed the phase since)."""
    if isinstance(taskforce, dict) and taskforce.get("phase") == Phase.CONDOR_COMPLETE:
        return True
    return any(
        _is(entry, Phase.CONDOR_COMPLETE, succeeded=True) and entry.get("source_event_time") == condor_complete_ts
        for entry in _entries(taskforce)
    )


def completion_time(taskforce: Any) -> float | None:
    """When the cluster ended, as the WMS was told last (epoch s); None if its log does not say."""
    times = [
        entry.get("source_event_time")
        for entry in _entries(taskforce)
        if _is(entry, Phase.CONDOR_COMPLETE, succeeded=True)
    ]
    last = times[-1] if times else None
    if not isinstance(last, int | float) or isinstance(last, bool) or not 0 <= last < _LATEST:
        return None
    return float(last)


def _entries(taskforce: Any) -> Iterator[dict[str, Any]]:
    entries = taskforce.get("phase_change_log") if isinstance(taskforce, dict) else None
    return (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else iter(())


def _is(entry: dict[str, Any], target: str, *, succeeded: bool) -> bool:
    return entry.get("target_phase") == target and entry.get("was_successful") is succeeded


def failed_uuids(answer: Any) -> frozenset[str]:
    """The taskforces of a status batch that the WMS does not know (the `results` of a 207; a 200 has none)."""
    results = answer.get("results") if isinstance(answer, dict) else None
    if results is None:
        return frozenset()
    try:
        uuids = frozenset(result["uuid"] for result in results if result["status"] == "failed")
    except (KeyError, TypeError):
        uuids = None
    if uuids is None or not all(isinstance(uuid, str) for uuid in uuids):
        raise WMSMalformed("answer to a status batch", ["expected results: [{uuid, status}]"])
    return uuids


def read_page(answer: Any) -> tuple[list[dict[str, Any]], str | None]:
    """The taskforces of one page and the cursor of the next (None: this was the last)."""
    taskforces = answer.get("taskforces") if isinstance(answer, dict) else None
    if not isinstance(taskforces, list) or not all(isinstance(each, dict) for each in taskforces):
        raise WMSMalformed("page", ["expected taskforces: [objects]"])
    after = answer.get("next_after")
    if after is not None and not isinstance(after, str):
        raise WMSMalformed("page", ["expected next_after: a string or null"])
    return taskforces, after
