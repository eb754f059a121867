"""The embedded schedd's job queue: what can be asked of it, and what happens to its jobs.

Nothing here waits: every call is one step, so each is atomic. The daemon gives `wake` (there may be something to
start) and runs the workers; it says how they fare through `Runs` (`runs.py`).
"""

import heapq
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import getuid
from typing import Any, cast

import attrs
import classad2

from ewms.testing.schedd import logtext
from ewms.testing.schedd.jobs import (
    HOLD_BY_POLICY,
    HOLD_BY_USER,
    HOLD_LABELS,
    Cluster,
    Ended,
    Fate,
    Job,
    Status,
    Stop,
    policy_reason,
    stopped,
    user_stop,
)
from ewms.testing.schedd.logtext import Event, Usage
from ewms.testing.schedd.machine import evaluates_true, matches
from ewms.testing.schedd.queueads import listed, notes, projected, refreshed
from ewms.testing.schedd.submitparse import SubmitRefused, read
from ewms.tms.condor.base import Ad, Value

Journal = Callable[[str, Sequence[bytes]], None]
"""Appends events to a log, one write each."""


class QueueRefused(Exception):
    """The request is wrong; the text says what is wrong with it."""


def _parsed(text: str) -> Any:
    try:
        return classad2.ExprTree(text)
    except classad2.ClassAdException as error:
        raise QueueRefused(f"{error} {text!r}") from error


@attrs.define(eq=False)
class Queue:
    """All clusters, running and past."""

    name: str
    """The access point's full host name."""
    machine: Any
    journal: Journal
    clock: Callable[[], float]
    """The time in s since the epoch."""
    wake: Callable[[], None]
    environ: Mapping[str, str]
    """For `$ENV()`."""
    address: str = ""
    clusters: dict[int, Cluster] = attrs.field(factory=dict)
    past: list[Any] = attrs.field(factory=list)
    """Ads of procs that left the queue, oldest first."""
    last_cluster: int = 0
    owner: str = attrs.field(factory=lambda: pwd.getpwuid(getuid()).pw_name)

    # --- what the TMS asks (`ewms.tms.condor.base`) ---

    def submit(self, description: Mapping[str, Any], count: int) -> dict[str, int]:
        """A new cluster."""
        cluster_id = self.last_cluster + 1
        try:
            parsed = read(description, max(count, 1), cluster_id, self.environ)
        except SubmitRefused as error:
            raise QueueRefused(str(error)) from error
        self.last_cluster = cluster_id
        cluster = Cluster(
            cluster_id, parsed, self._new_ad(parsed.values(cluster_id, 0), cluster_id, None, parsed.count)
        )
        self.clusters[cluster_id] = cluster
        if parsed.is_factory:
            self._write(cluster.ad, logtext.cluster_submitted(cluster_id, self.address, notes(cluster.ad)))
        else:
            self._materialize(cluster, parsed.count)
        self.wake()
        return {"cluster_id": cluster_id, "n_procs": parsed.count}

    def query(self, constraint: str, projection: list[str], cluster_ads: bool = False) -> list[Ad]:
        """Ads of the queue."""
        tree = _parsed(constraint)
        ads = [refreshed(cluster) for cluster in self.clusters.values()] if cluster_ads else []
        ads += [job.ad for job in self._jobs()]
        now = {"ServerTime": int(self.clock())}  # HTCondor adds it to every answer of the queue
        return [{**projected(ad, projection), **now} for ad in ads if evaluates_true(tree, ad)]

    def history(
        self, constraint: str, projection: list[str], match: int | None = None, since: str | None = None
    ) -> list[Ad]:
        """Ads of the past, newest first."""
        tree = _parsed(constraint)
        until = None if since is None else _parsed(f"ClusterId == {since}" if since.isdigit() else since)
        found: list[Ad] = []
        for ad in reversed(self.past):
            if (until is not None and evaluates_true(until, ad)) or len(found) == match:
                break
            if evaluates_true(tree, ad):
                found.append(projected(ad, projection))
        return found

    def act(self, action: str, constraint: str, reason: str) -> dict[str, int]:
        """Remove, hold, release or vacate; a factory whose cluster ad matches is acted on as a whole."""
        if action not in ("remove", "hold", "release", "vacate"):
            raise QueueRefused(f"unknown action {action!r}")
        tree = _parsed(constraint)
        said = f"{reason} (by user {self.owner})"
        clusters = [each for each in self.clusters.values() if each.description.is_factory]
        met = [each for each in clusters if evaluates_true(tree, refreshed(each))]
        done = [self._act_on_factory(cluster, action, said) for cluster in met]
        jobs = [job for job in self._jobs() if evaluates_true(tree, job.ad)]
        act = self._release_job if action == "release" else self._stop_job
        done += [act(job, action, said) for job in jobs]
        for cluster in met:
            self._close_if_done(cluster)
        self.wake()
        # A job in a state that the action does not fit is met by none of HTCondor's counts.
        return {"succeeded": sum(done), "failed": 0}

    def parse(self, expression: str) -> str:
        """The canonical form."""
        return repr(_parsed(expression))

    def evaluate(self, expression: str) -> Value:
        """The value without any ad."""
        value = _parsed(expression).eval()
        if type(value) not in (bool, int, float, str):
            raise QueueRefused(f"{expression!r} evaluates to {value!r}")
        return cast("Value", value)

    def param(self, name: str) -> str | None:
        """The few configuration values that there are."""
        return {"FULL_HOSTNAME": self.name, "HOSTNAME": self.name.partition(".")[0]}.get(name.upper())

    # --- actions ---

    def _act_on_factory(self, cluster: Cluster, action: str, reason: str) -> bool:
        # As HTCondor does, it says so again about a factory that was paused or resumed before.
        match action:
            case "remove":
                cluster.removed = True
            case "hold":
                cluster.pause_reason = reason
                self._write(cluster.ad, logtext.paused(cluster.id, reason, 1, HOLD_BY_USER))
            case "release":
                cluster.pause_reason = None
                self._write(cluster.ad, logtext.resumed(cluster.id, reason))
        return action != "vacate"

    def _stop_job(self, job: Job, action: str, reason: str) -> bool:
        """Remove, hold or vacate."""
        if job.run is not None:
            if job.stop is not None and (job.stop.then is Status.REMOVED or action != "remove"):
                return False
            self.stop_run(job, user_stop(action, reason))
            return True
        is_held_by_user = job.status is Status.HELD and job.ad["HoldReasonCode"] == HOLD_BY_USER
        if action == "vacate" or (action == "hold" and is_held_by_user):
            return False
        self.settle(job, stopped(job, attrs.evolve(user_stop(action, reason), eviction=None), Usage()))
        return True

    def _release_job(self, job: Job, _action: str, reason: str) -> bool:
        if job.status is not Status.HELD or job.run is not None:
            return False
        self._write(job.ad, logtext.released(job.cluster, job.proc, reason))
        for name in ("HoldReason", "HoldReasonCode", "HoldReasonSubCode"):
            job.ad[f"Last{name}"] = job.ad.pop(name)
        self._enter(job, Status.IDLE)
        return True

    def stop_run(self, job: Job, stop: Stop) -> None:
        """Stop a worker: the queue shows at once what is to become of it, the log only when it is really dead."""
        assert job.run is not None
        job.stop = stop
        if stop.then is not Status.IDLE:
            self._enter(job, stop.then)
        job.run.stop()

    # --- what happens by itself ---

    def materialize(self) -> None:
        """Let the factories make the procs that they may."""
        for cluster in list(self.clusters.values()):
            if cluster.description.is_factory and (room := cluster.room()):
                self._materialize(cluster, room)

    def _materialize(self, cluster: Cluster, room: int) -> None:
        events: list[bytes] = []
        for proc in range(cluster.next_proc, cluster.next_proc + room):
            try:
                values = cluster.description.values(cluster.id, proc)
            except SubmitRefused as error:
                cluster.pause_reason = str(error)
                self._write(cluster.ad, logtext.paused(cluster.id, str(error), 1, None))
                break
            job = Job(cluster.id, proc, self._new_ad(values, cluster.id, proc, cluster.description.count))
            cluster.add(job)
            events += self._rendered(job.ad, logtext.submitted(cluster.id, proc, self.address, notes(job.ad)))
        if "UserLog" in cluster.ad:
            self.journal(cluster.ad["UserLog"], events)

    def startable(self, slots: int) -> list[Job]:
        """The idle jobs to start on so many free slots, best priority first."""
        waiting = (job for cluster in self.clusters.values() for job in self._fitting(cluster))
        return heapq.nsmallest(slots, waiting, key=lambda job: (-job.ad["JobPrio"], job.cluster, job.proc))

    def _fitting(self, cluster: Cluster) -> Iterator[Job]:
        # All procs of a cluster have the same requirements; only a past of its own tells a job from the others.
        for job in cluster.idle.values():
            if job.has_ended:
                if matches(job.ad, self.machine):
                    yield job
                continue
            if cluster.fits is None:
                cluster.fits = matches(job.ad, self.machine)
            if cluster.fits:
                yield job

    def apply_policies(self) -> None:
        """Evaluate the periodic expressions of all jobs, and anew which of them the machine fits."""
        for cluster in self.clusters.values():
            cluster.fits = None
        self.wake()
        for job in self._jobs():
            if job.stop is None:
                self._apply_policy(job)

    def _apply_policy(self, job: Job) -> None:
        if job.holds("PeriodicRemove"):
            reason, _ = policy_reason(job, "PeriodicRemove", "TRUE")
            self._stop_by_policy(job, Stop(Status.REMOVED, reason))
        elif job.status is Status.HELD:
            if job.holds("PeriodicRelease"):
                self._release_job(job, "release", policy_reason(job, "PeriodicRelease", "TRUE")[0])
        elif job.holds("PeriodicHold"):
            reason, subcode = policy_reason(job, "PeriodicHold", "TRUE")
            self._stop_by_policy(job, Stop(Status.HELD, reason, HOLD_BY_POLICY, subcode))

    def _stop_by_policy(self, job: Job, stop: Stop) -> None:
        if job.run is None:
            self.settle(job, stopped(job, stop, Usage()))
        else:
            self.stop_run(job, stop)

    # --- how jobs change ---

    def write(self, job: Job, *events: Event) -> None:
        """Append events about a job to its log."""
        for event in events:
            self._write(job.ad, event)

    def begin(self, job: Job) -> None:
        """A match was found; the run begins."""
        now = int(self.clock())
        job.ad.update({"NumShadowStarts": job.ad["NumShadowStarts"] + 1, "JobCurrentStartDate": now})
        for name in job.value("JobMachineAttrs", "").replace(",", " ").split():
            job.ad[f"MachineAttr{name}0"] = self.machine[name]
        self._enter(job, Status.RUNNING)

    def executes(self, job: Job, slot: str, scratch: str) -> None:
        """The worker was started."""
        job.ad.update({"NumJobStarts": job.ad["NumJobStarts"] + 1, "RemoteHost": slot})
        job.ad["JobCurrentStartExecutingDate"] = int(self.clock())
        properties: dict[str, Value] = {
            "CondorScratchDir": scratch,
            "Cpus": job.value("RequestCpus", 1),
            "Disk": job.value("RequestDisk", 0),
            "GPUs": 0,
            "Memory": -(-job.value("RequestMemory", 0) // 128) * 128,
        }
        self.write(job, logtext.executing(job.cluster, job.proc, self.address, slot, properties))

    def count_end(self, job: Job, ended: Ended) -> None:
        """The worker ended by itself: what the policies for its end look at."""
        job.ad["NumJobCompletions"] += 1
        job.ad["ExitBySignal"] = ended.signal is not None
        job.ad["CompletionDate"] = job.ad["JobCurrentFinishTransferOutputDate"] = int(self.clock())
        job.has_ended = True
        if ended.signal is None:
            job.ad["ExitCode"] = ended.exit_code
        else:
            job.ad["ExitSignal"] = ended.signal

    def settle(self, job: Job, fate: Fate) -> None:
        """Write the events of a fate, and let the job live on or leave the queue."""
        self.write(job, *fate.events)
        job.stop = job.run = None
        if fate.status is Status.HELD:
            self._note_hold(job.ad, fate)
        elif fate.status is Status.REMOVED:
            job.ad["RemoveReason"] = fate.reason
        self._enter(job, fate.status)
        if fate.status is Status.REMOVED or (fate.status is Status.COMPLETED and not job.holds("LeaveJobInQueue")):
            cluster = self.clusters[job.cluster]
            del cluster.jobs[job.proc]
            self.past.append(job.ad)
            self._close_if_done(cluster)
        self.wake()

    @staticmethod
    def _note_hold(ad: Any, fate: Fate) -> None:
        ad.update({"HoldReason": fate.reason, "HoldReasonCode": fate.code, "HoldReasonSubCode": fate.subcode})
        counts = ad["NumHoldsByReason"] if "NumHoldsByReason" in ad else classad2.ClassAd()
        label = HOLD_LABELS.get(fate.code, f"Code{fate.code}")
        counts[label] = 1 + (counts[label] if label in counts else 0)  # noqa: SIM401  an ad's get() is not a dict's
        ad["NumHoldsByReason"] = counts
        ad["NumHolds"] = sum(counts[each] for each in counts)

    def _enter(self, job: Job, status: Status) -> None:
        self.clusters[job.cluster].enter(job, status, int(self.clock()))

    def _close_if_done(self, cluster: Cluster) -> None:
        if cluster.id not in self.clusters or cluster.jobs or not cluster.exhausted:
            return
        del self.clusters[cluster.id]
        if cluster.description.is_factory:
            complete = not cluster.removed
            event = logtext.cluster_removed(cluster.id, cluster.next_proc, complete, cluster.pause_reason or "")
            self._write(cluster.ad, event)

    # --- ads and logs ---

    def _jobs(self) -> Iterator[Job]:
        return iter([job for cluster in self.clusters.values() for job in cluster.jobs.values()])

    def _new_ad(self, values: Mapping[str, Any], cluster: int, proc: int | None, total: int) -> Any:
        now = int(self.clock())
        ad = classad2.ClassAd(
            {
                "MyType": "Job",
                "ClusterId": cluster,
                "Owner": self.owner,
                "User": f"{self.owner}@{self.name}",
                "QDate": now,
                "EnteredCurrentStatus": now,
                "JobStatus": int(Status.IDLE),
                "JobUniverse": 5,
                "Iwd": "/",
                "NumJobStarts": 0,
                "NumJobCompletions": 0,
                "NumShadowStarts": 0,
                "TotalSubmitProcs": total,
            }
        )
        for name, value in values.items():
            ad[name] = value
        if proc is not None:
            ad["ProcId"] = proc
            ad["GlobalJobId"] = f"{self.name}#{cluster}.{proc}#{now}"
        return ad

    def _write(self, ad: Any, event: Event) -> None:
        if "UserLog" in ad:
            self.journal(ad["UserLog"], self._rendered(ad, event))

    def _rendered(self, ad: Any, event: Event) -> list[bytes]:
        now = self.clock()
        rendered = [logtext.render(event, now)]
        if "JobAdInformationAttrs" in ad:
            wanted = listed(ad["JobAdInformationAttrs"])
            attributes = {name: repr(ad.lookup(name)) for name in wanted if name in ad}
            if (about := logtext.information(event, now, attributes)) is not None:
                rendered.append(logtext.render(about, now))
        return rendered
