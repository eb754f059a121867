"""What is true about a taskforce, seen from outside the TMS, and whether that is right (pure)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from ewms.testing.wms.phases import MAX_FAILURES
from ewms.wms.models import Phase, Taskforce
from tests.sweep.cases import End

_HEADER: Final = re.compile(r"(\d{3}) \((\d+)\.(-?\d+)\.")
_TERMINAL_EVENTS: Final = frozenset({5, 9})
_LIVING: Final = ("IDLE", "RUNNING", "HELD")


@attrs.frozen
class Call:
    """A call about the taskforce on which the WMS acted, answered or not."""

    name: str
    status: int


@attrs.define
class LoggedCluster:
    """A cluster as a job event log tells of it."""

    log: str
    submitted: set[int] = attrs.field(factory=set)
    ended: set[int] = attrs.field(factory=set)
    is_removed: bool = False
    """Event 036 was written: the cluster is gone."""

    @property
    def has_lost_a_job(self) -> bool:
        """Whether anything of it has ended."""
        return self.is_removed or bool(self.ended)


def read_log(name: str, text: str, uuid: str) -> dict[int, LoggedCluster]:
    """The clusters in a job event log whose submit events name the taskforce."""
    clusters: dict[int, LoggedCluster] = {}
    ours: set[int] = set()
    for event in text.split("\n...\n"):
        match = _HEADER.match(event)
        if match is None:
            continue
        number, cluster_id, proc = map(int, match.groups())
        cluster = clusters.setdefault(cluster_id, LoggedCluster(name))
        if number in (0, 35) and uuid in event:
            ours.add(cluster_id)
        if number == 0:
            cluster.submitted.add(proc)
        elif number in _TERMINAL_EVENTS:
            cluster.ended.add(proc)
        elif number == 36:
            cluster.is_removed = True
    return {cluster_id: cluster for cluster_id, cluster in clusters.items() if cluster_id in ours}


@attrs.frozen
class Evidence:
    """What can be seen at one moment."""

    queue: frozenset[int]
    """Clusters of the taskforce in the queue that are not being removed."""
    history: frozenset[int]
    logged: Mapping[int, LoggedCluster]
    taskforce: Taskforce
    has_envfile: bool
    """It is there, and only its owner can read it."""
    bystander_lives: bool
    """Another taskforce's cluster, started earlier, is in the queue, and the WMS takes it for running."""
    entry: Mapping[str, Any]
    """What the TMS's ledger says."""

    @property
    def clusters(self) -> frozenset[int]:
        """All that were ever seen."""
        return self.queue | self.history | frozenset(self.logged)


def judge(
    end: End, n_workers: int, evidence: Evidence, calls: Sequence[Call], *, stop_must_be_told: bool = True
) -> list[str]:
    """What is wrong at the end of a case."""
    problems = [] if evidence.bystander_lives else ["another taskforce's cluster was harmed"]
    if evidence.queue:
        problems.append(f"clusters are left in the queue: {sorted(evidence.queue)}")
    match end:
        case End.WITHDRAWN:
            return problems + _judge_withdrawn(evidence, calls)
        case End.REFUSED:
            return problems + _judge_refused(evidence, calls)
        case End.COMPLETED:
            order = order_problems(calls, stop_must_be_told=stop_must_be_told)
            return problems + _judge_completed(n_workers, evidence) + order


def judge_running(n_workers: int, evidence: Evidence) -> list[str]:
    """What is wrong with a taskforce that is confirmed and that nobody has stopped yet."""
    problems = _judge_cluster(n_workers, evidence)
    if evidence.queue != evidence.clusters:
        problems.append(f"running, but of {sorted(evidence.clusters)} only {sorted(evidence.queue)} are in the queue")
    problems += [
        f"jobs of the healthy cluster {cluster_id} have ended"
        for cluster_id, cluster in evidence.logged.items()
        if cluster.has_lost_a_job
    ]
    if not evidence.has_envfile:
        problems.append("running, but its envfile is not there, or others can read it")
    return problems


def _judge_cluster(n_workers: int, evidence: Evidence) -> list[str]:
    """Exactly one cluster, and the WMS knows it as it is."""
    taskforce, problems = evidence.taskforce, []
    if len(evidence.clusters) != 1:
        problems.append(f"{len(evidence.clusters)} clusters: {sorted(evidence.clusters)}")
    if frozenset({taskforce.cluster_id}) != evidence.clusters:
        problems.append(f"the WMS has cluster {taskforce.cluster_id}, true are {sorted(evidence.clusters)}")
    if taskforce.n_workers != n_workers:
        problems.append(f"the WMS has {taskforce.n_workers} workers, ordered were {n_workers}")
    if not taskforce.submit_dict:
        problems.append("the WMS was not told the submit description")
    logs = {cluster.log for cluster in evidence.logged.values()}
    if logs != {taskforce.job_event_log_fpath}:
        problems.append(f"the WMS has the log {taskforce.job_event_log_fpath}, true are {sorted(logs)}")
    return problems


def _judge_completed(n_workers: int, evidence: Evidence) -> list[str]:
    taskforce = evidence.taskforce
    problems = _judge_cluster(n_workers, evidence)
    if taskforce.phase != Phase.CONDOR_COMPLETE:
        problems.append(f"the WMS has it as {taskforce.phase}")
    for phase in (Phase.CONDOR_SUBMIT, Phase.CONDOR_COMPLETE):
        times = sum(each.target_phase == phase for each in taskforce.phase_change_log)
        if times != 1:
            problems.append(f"the WMS's log has {phase} {times} times")
    noted = {name: moment for name, moment in evidence.entry.items() if name.endswith("_at")}
    if noted.get("completed_at") is None:
        problems.append(f"completed, but the ledger does not know it: {noted}")
    if noted.get("stop_began_at") is not None and noted.get("stopped_at") is None:
        problems.append(f"stopped, but the ledger does not know it: {noted}")
    living = {each: pilots for each, pilots in taskforce.compound_statuses.items() if each.startswith(_LIVING)}
    jobs = sum(sum(pilots.values()) for pilots in taskforce.compound_statuses.values())
    if living or jobs != n_workers:
        problems.append(f"the last statuses are not the end: {dict(taskforce.compound_statuses)}")
    return problems


def _judge_withdrawn(evidence: Evidence, calls: Iterable[Call]) -> list[str]:
    taskforce, problems = evidence.taskforce, []
    if len(evidence.clusters) > 1:
        problems.append(f"{len(evidence.clusters)} clusters: {sorted(evidence.clusters)}")
    problems += [
        f"cluster {cluster_id} of a withdrawn order was not removed"
        for cluster_id, cluster in evidence.logged.items()
        if not cluster.is_removed
    ]
    if (taskforce.phase, taskforce.cluster_id) != (Phase.PENDING_STOPPER, None):
        problems.append(f"withdrawn, but the WMS has {taskforce.phase}, cluster {taskforce.cluster_id}")
    heard = _taken(calls)
    if heard:
        problems.append(f"withdrawn, but the WMS was told {heard}")
    return problems


def _judge_refused(evidence: Evidence, calls: Iterable[Call]) -> list[str]:
    taskforce, problems = evidence.taskforce, []
    if evidence.clusters:
        problems.append(f"refused, but there are clusters: {sorted(evidence.clusters)}")
    failures = sum(not each.was_successful for each in taskforce.phase_change_log)
    if (taskforce.phase, failures) != (Phase.PENDING_STARTER, MAX_FAILURES):
        problems.append(f"refused, but the WMS has {taskforce.phase} with {failures} failures")
    heard = _taken(calls)
    if set(heard) != {"condor-submit/failed"}:
        problems.append(f"refused, but the WMS was told {heard}")
    return problems


def _taken(calls: Iterable[Call]) -> list[str]:
    """What the WMS was told and took."""
    told = [call for call in calls if call.name.startswith("POST:") and call.name != "POST:query"]
    return [call.name.removeprefix("POST:") for call in told if call.status < 300]


def order_problems(calls: Iterable[Call], *, stop_must_be_told: bool = True) -> list[str]:
    """Whether the WMS heard confirm → statuses → condor-rm → last statuses → condor-complete, and no failure."""
    taken = _taken(calls)
    problems = [f"the WMS was told of a failure: {name}" for name in taken if name.endswith("/failed")]
    if taken.count("condor-submit") != 1 or taken[0] != "condor-submit":
        problems.append(f"the confirmation is not once and first: {taken}")
    if taken.count("condor-complete") != 1 or taken[-1] != "condor-complete":
        problems.append(f"the completion is not once and last: {taken}")
    if "condor-rm" not in taken and stop_must_be_told:
        problems.append(f"the stop was not confirmed: {taken}")
    if "statuses" not in taken:
        problems.append(f"there were no statuses: {taken}")
    elif "condor-rm" in taken and "statuses" not in taken[taken.index("condor-rm") :]:
        problems.append(f"the last statuses do not come after the stop: {taken}")
    return problems
