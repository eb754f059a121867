"""Read a job event log as production's present TMS does, with HTCondor's bindings of version 1; what it makes of it.

Run by the Python that has them: python todays_reader.py LOG → {cluster: {"statuses": …, "errors": …, "ended": …}}.
It keeps the last word of each job, knows a cluster's end from event 036 only, and passes over chirps that it does not
know.
"""

import importlib
import json
import sys
from collections import Counter
from typing import Any

htcondor = importlib.import_module("htcondor")

STATUS_OF = {
    "SUBMIT": "IDLE",
    "JOB_EVICTED": "IDLE",
    "SHADOW_EXCEPTION": "IDLE",
    "JOB_RELEASED": "IDLE",
    "JOB_RECONNECT_FAILED": "IDLE",
    "EXECUTE": "RUNNING",
    "JOB_UNSUSPENDED": "RUNNING",
    "JOB_TERMINATED": "COMPLETED",
    "JOB_SUSPENDED": "SUSPENDED",
    "JOB_ABORTED": "REMOVED",
    "JOB_HELD": "HELD",
}
CHIRPS = {"HTChirpEWMSPilotStatus": "pilot", "HTChirpEWMSPilotError": "error"}


def read(path: str) -> dict[int, dict[str, Any]]:
    jobs: dict[tuple[int, int], dict[str, str]] = {}
    ended: dict[int, int] = {}
    for event in htcondor.JobEventLog(path).events(stop_after=0):
        kind = event.type.name
        if kind == "CLUSTER_REMOVE":
            ended[event.cluster] = int(event.timestamp)
        elif kind in STATUS_OF:
            jobs.setdefault((event.cluster, event.proc), {})["status"] = STATUS_OF[kind]
        elif kind == "GENERIC":
            name, _, value = event["Info"].partition(":")
            if name in CHIRPS:
                jobs.setdefault((event.cluster, event.proc), {})[CHIRPS[name]] = htcondor.classad.unquote(value.strip())
    return {cluster: summary(jobs, cluster, ended.get(cluster)) for cluster in {cluster for cluster, _ in jobs}}


def summary(jobs: dict[tuple[int, int], dict[str, str]], cluster: int, ended: int | None) -> dict[str, Any]:
    mine = [job for (each, _), job in jobs.items() if each == cluster]
    statuses: dict[str, Counter[str]] = {}
    for job in mine:
        statuses.setdefault(job["status"], Counter())[job.get("pilot", "null")] += 1
    return {"statuses": statuses, "errors": Counter(job["error"] for job in mine if "error" in job), "ended": ended}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1])))
