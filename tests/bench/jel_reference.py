"""A slow, obvious reading of a clean log through HTCondor's own reader: what ours must equal."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import htcondor2

from ewms.tms.eventlog.format import classad_value
from ewms.tms.eventlog.grouping import group_of
from ewms.tms.eventlog.statuses import hold_words

STATUS_OF = {0: "IDLE", 1: "RUNNING", 4: "IDLE", 5: "COMPLETED", 7: "IDLE", 9: "REMOVED", 10: "SUSPENDED"} | {
    11: "RUNNING",
    13: "IDLE",
    24: "IDLE",
}

Snapshot = dict[int, tuple[dict[str, dict[str, int]], dict[str, int], bool]]


class Reference:
    def __init__(self) -> None:
        self.jobs: dict[tuple[int, int], dict[str, Any]] = {}
        self.removed: set[int] = set()
        self.factories: set[int] = set()
        self.examples: dict[tuple[int, str], str] = {}

    def take(self, number: int, cluster: int, proc: int, event: Any) -> None:
        if cluster in self.removed:
            return
        if number == 36:
            self.removed.add(cluster)
        if number == 35:
            self.factories.add(cluster)
        if proc < 0 or number not in {*STATUS_OF, 8, 12} or (number == 8 and not is_told(event["Info"])):
            return
        known = (cluster, proc) in self.jobs
        job = self.jobs.setdefault((cluster, proc), {"status": "IDLE", "pilot": "null", "error": None})
        if number == 8:
            name, _, value = event["Info"].partition(": ")
            job["pilot" if name.endswith("Status") else "error"] = classad_value(value.encode())
        elif number == 12:
            reason = hold_words(event.get("HoldReasonCode"), event.get("HoldReason", ""))
            job["status"] = f"HELD: {group_of(reason)}"
            self.examples.setdefault((cluster, job["status"]), f"HELD: {reason}")
        elif number != 0 or not known:
            job["status"] = STATUS_OF[number]
        if number in {1, 4, 7, 13, 24}:
            job["pilot"], job["error"] = "null", None

    def snapshot(self) -> Snapshot:
        found: Snapshot = {}
        for cluster in {cluster for cluster, _ in self.jobs}:
            jobs = [job for (each, _), job in self.jobs.items() if each == cluster]
            compound: dict[str, dict[str, int]] = {}
            errors: dict[str, int] = {}
            holds = Counter(job["status"] for job in jobs if job["status"].startswith("HELD"))
            told = sorted(holds, key=lambda status: (-holds[status], status))[:10]
            for job in jobs:
                is_rare = job["status"] in holds and job["status"] not in told
                example = self.examples.get((cluster, job["status"]), job["status"])
                by_pilot = compound.setdefault("HELD: (further reasons)" if is_rare else example, {})
                by_pilot[job["pilot"]] = by_pilot.get(job["pilot"], 0) + 1
                if job["error"] is not None:
                    group = group_of(job["error"])
                    errors[group] = errors.get(group, 0) + 1
            ended = all(job["status"] in {"COMPLETED", "REMOVED"} for job in jobs) and cluster not in self.factories
            found[cluster] = compound, errors, ended or cluster in self.removed
        return found


def is_told(info: str) -> bool:
    return info.startswith(("HTChirpEWMSPilotStatus: ", "HTChirpEWMSPilotError: "))


def snapshots(path: Path, every: int = 1) -> Iterator[Snapshot]:
    """What is known after each so many events of a clean log, and after its last one."""
    reference, number = Reference(), 0
    for number, event in enumerate(htcondor2.JobEventLog(str(path)).events(0), start=1):
        reference.take(int(event.type), event.cluster, event.proc, event)
        if number % every == 0:
            yield reference.snapshot()
    if number % every:
        yield reference.snapshot()
