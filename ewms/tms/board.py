"""What the watchers know, as the report station reads it: one report per taskforce, when it changed (pure).

The watchers feed one tally per day log; the TMS tells which clusters it expects and how large they are. A taskforce
stays on the list of changes until a report that is still true was accepted.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime

import attrs

from ewms.contract import DAY_LOG_SUFFIX
from ewms.tms.eventlog.cluster import Cluster, merged
from ewms.tms.eventlog.tally import Tally


@attrs.frozen
class TaskforceReport:
    """A taskforce's jobs, as the WMS hears of them."""

    uuid: str
    cluster_id: int
    compound_statuses: Mapping[str, Mapping[str, int]]
    top_task_errors: Mapping[str, int]
    completed_at: int | None
    """When the cluster left the queue, in epoch s; None while it lives."""
    materialization_failure: str | None = None
    """Why the job factory stopped by itself. Nothing brings it back: once no job is left, remove the cluster."""


@attrs.frozen
class Expected:
    """A cluster that the TMS submitted."""

    cluster_id: int
    n_workers: int


class Board:
    """All tallies, by taskforce."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._expected: dict[str, Expected] = {}
        self._names: dict[int, str] = {}  # cluster id → UUID, for clusters whose log does not name them
        self._places: dict[str, set[tuple[str, int]]] = {}  # UUID → (log, cluster id)
        self._dirty: dict[str, None] = {}  # a set that keeps its order
        self._accepted: dict[str, TaskforceReport] = {}
        self._doubtful: set[str] = set()

    # --- from the TMS ---

    def expect(self, uuid: str, cluster_id: int, n_workers: int) -> None:
        """The TMS submitted (or adopted) this cluster: workers that are not in the log yet count as idle.

        `n_workers` 0 says that the cluster's size is not known: then only what the log speaks of counts.
        """
        self._expect_no_more(uuid)
        self._expected[uuid] = Expected(cluster_id, n_workers)
        self._names[cluster_id] = uuid
        self._dirty[uuid] = None
        self._accepted.pop(uuid, None)  # what was dropped, because the WMS did not know the taskforce, is told now
        for tally in self._tallies.values():
            if cluster_id in tally.clusters:
                tally.changed.add(cluster_id)

    def places(self, uuid: str) -> list[tuple[str, int]]:
        """Each log that names a cluster for this taskforce, and its id: a durable witness that it was submitted."""
        return [
            (log_name, cluster_id)
            for log_name, tally in self._tallies.items()
            for cluster_id, cluster in tally.clusters.items()
            if (cluster.uuid or self._names.get(cluster_id)) == uuid
        ]

    def changed(self) -> list[TaskforceReport]:
        """A report of every taskforce that differs from what was last accepted."""
        return list(self.changes())

    def changes(self, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[TaskforceReport]:
        """The same, of the wanted ones (by UUID), one by one: who takes only some pays only for these."""
        self._collect()
        for uuid in filter(wanted, list(self._dirty)):
            report = self.report(uuid)
            if report is None or report == self._accepted.get(uuid):
                del self._dirty[uuid]
            else:
                yield report

    def accepted(self, reports: Iterable[TaskforceReport], in_doubt: Container[str] = ()) -> None:
        """The WMS took these; what changed since then stays on the list. Those in doubt will be told again."""
        for report in reports:
            self._accepted[report.uuid] = report
            if report.uuid in in_doubt:
                self._doubtful.add(report.uuid)

    def tell_again(self, uuids: Iterable[str]) -> None:
        """Put these on the list, changed or not: something older may have reached the WMS since."""
        for uuid in uuids:
            self._doubtful.discard(uuid)
            self._accepted.pop(uuid, None)
            self._dirty[uuid] = None

    def ended(self, uuid: str, at: int) -> None:
        """The schedd says that the taskforce's cluster is gone (since `at`, epoch s), whatever the log lacks."""
        self._collect()
        for cluster in self._parts(uuid):
            cluster.close(at)
        self._dirty[uuid] = None

    def report(self, uuid: str) -> TaskforceReport | None:
        """The taskforce as it is now; None if neither a log nor the TMS knows it."""
        parts, expected = self._parts(uuid), self._expected.get(uuid)
        if not parts:
            if expected is None:
                return None
            parts = [Cluster(expected.cluster_id)]
        n_workers = (expected.n_workers or None) if expected and expected.cluster_id == parts[0].cluster_id else None
        return report_on(uuid, parts[0] if len(parts) == 1 else merged(parts), n_workers)

    def forget_all_but(self, is_known: Callable[[str], bool]) -> None:
        """Give back what is kept of the other taskforces; what the logs say of their clusters stays with the logs."""
        self._collect()
        for uuid in [uuid for uuid in self._places.keys() | self._expected.keys() if not is_known(uuid)]:
            self._places.pop(uuid, None)
            self._dirty.pop(uuid, None)
            self._accepted.pop(uuid, None)
            self._doubtful.discard(uuid)
            self._expect_no_more(uuid)

    def job_counts(self) -> Counter[str]:
        """How many jobs of living clusters the logs have in each status; why a job is held is left out."""
        counts: Counter[str] = Counter()
        for tally in self._tallies.values():
            for cluster in tally.clusters.values():
                if not cluster.closed:
                    for status, by_pilot in cluster.compound_statuses(None).items():
                        counts[status.partition(":")[0]] += sum(by_pilot.values())
        return counts

    def failed_factories(self) -> int:
        """How many living clusters get no further workers, because their job factory stopped by itself."""
        clusters = [cluster for tally in self._tallies.values() for cluster in tally.clusters.values()]
        return sum(cluster.paused is not None and not cluster.closed for cluster in clusters)

    # --- from the watchers ---

    def tally(self, log_name: str) -> Tally:
        """The tally of a day log, to be fed."""
        if log_name not in self._tallies:
            self._tallies[log_name] = Tally(day_of(log_name))
        return self._tallies[log_name]

    def restore(self, log_name: str, tally: Tally) -> None:
        """Begin with a tally from a checkpoint."""
        assert log_name not in self._tallies
        self._tallies[log_name] = tally

    def drop(self, log_name: str) -> bool:
        """Forget a log that is gone, once its clusters have ended and were reported; False as long as they were not."""
        if log_name not in self._tallies:
            return True  # nothing of it could ever be read
        self._collect()
        named = {uuid for uuid, places in self._places.items() if any(log == log_name for log, _ in places)}
        for uuid in named:
            report = self.report(uuid)
            if report is None or report.completed_at is None or report != self._accepted.get(uuid):
                return False
            if uuid in self._doubtful:
                return False
        if self.unnamed(log_name):
            return False
        del self._tallies[log_name]
        for uuid in named:
            self._places[uuid] = {place for place in self._places[uuid] if place[0] != log_name}
            self._dirty.pop(uuid, None)
            if not self._places[uuid]:
                del self._places[uuid], self._accepted[uuid]
                self._expect_no_more(uuid)
        return True

    def unnamed(self, log_name: str) -> list[int]:
        """Living clusters of a log that belong to no taskforce that anybody knows."""
        unnamed = [
            cluster
            for cluster in self.tally(log_name).clusters.values()  # one that was never read is empty
            if cluster.uuid is None and cluster.cluster_id not in self._names
        ]
        return [cluster.cluster_id for cluster in unnamed if cluster.completed_at(None) is None]

    # --- inside ---

    def _expect_no_more(self, uuid: str) -> None:
        if expected := self._expected.pop(uuid, None):
            self._names.pop(expected.cluster_id, None)

    def _collect(self) -> None:
        for log_name, tally in self._tallies.items():
            while tally.changed:
                cluster_id = tally.changed.pop()
                uuid = tally.clusters[cluster_id].uuid or self._names.get(cluster_id)
                if uuid is not None:
                    self._places.setdefault(uuid, set()).add((log_name, cluster_id))
                    self._dirty[uuid] = None

    def _parts(self, uuid: str) -> list[Cluster]:
        """The taskforce's cluster in each log that speaks of it, the newest log first: normally one."""
        places = self._places.get(uuid, ())
        if not places:
            return []
        expected = self._expected.get(uuid)
        ids = {cluster_id for _, cluster_id in places}
        chosen = expected.cluster_id if expected and expected.cluster_id in ids else max(ids)
        return [self._tallies[log].clusters[each] for log, each in sorted(places, reverse=True) if each == chosen]


def report_on(uuid: str, cluster: Cluster, n_workers: int | None) -> TaskforceReport:
    """A cluster's tally as a report."""
    return TaskforceReport(
        uuid,
        cluster.cluster_id,
        cluster.compound_statuses(n_workers),
        cluster.top_task_errors(),
        cluster.completed_at(n_workers),
        cluster.paused,
    )


def day_of(log_name: str) -> date:
    """The day that a day log's name says, else today: it gives legacy dates their year."""
    try:
        return date.fromisoformat(log_name.removesuffix(DAY_LOG_SUFFIX))
    except ValueError:
        return datetime.now(UTC).date()
