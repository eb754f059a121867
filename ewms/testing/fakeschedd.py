"""A schedd in memory, for tests of what the TMS does: no workers, no helper process, but a true job event log.

`hook` is awaited before and after each call acts; it may raise (the answer is lost, or the call never came), sleep, or
cancel somebody.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs
import classad2
import trio

from ewms.tms.condor.base import Acted, Action, Ad, CondorRefused, Submitted, SubmitValue, Value

Moment = Literal["before", "after"]
Hook = Callable[[str, Moment], Awaitable[None]]

_UUID: Final = re.compile(r'EWMSTaskforceUUID == "([^"]*)"')
_CLUSTERS: Final = "ProcId =?= undefined"
_CLUSTER: Final = re.compile(r"ClusterId == (\d+)")


@attrs.define
class FakeCluster:
    """One cluster; `is_queued` until it ended."""

    cluster_id: int
    uuid: str
    description: Mapping[str, SubmitValue]
    n_procs: int
    is_queued: bool = True
    n_present: int = attrs.field(init=False)
    """Jobs in the queue."""

    def __attrs_post_init__(self) -> None:
        self.n_present = self.n_procs

    @property
    def log_path(self) -> Path:
        """Its job event log."""
        return Path(str(self.description["log"]))

    def ad(self) -> Ad:
        """As a query shows it."""
        return {
            "ClusterId": self.cluster_id,
            "UserLog": str(self.log_path),
            "TotalSubmitProcs": self.n_procs,
            "JobsPresent": self.n_present,
            "EWMSTaskforceUUID": self.uuid,
        }


def _projected(ads: Sequence[Ad], projection: Sequence[str]) -> list[Ad]:
    return [{name: ad.get(name) for name in projection} for ad in ads]


@lru_cache(maxsize=256)  # the bindings (25.14) lose 0.4 kB with each expression
def _evaluated(expression: str) -> Any:
    return classad2.ExprTree(expression).eval()


def _exists(path: str) -> bool:
    return Path(path).exists()


async def _nothing(_call: str, _moment: Moment) -> None:
    await trio.lowlevel.checkpoint()


class FakeSchedd:
    """Implements `ewms.tms.condor.base.Schedd`."""

    def __init__(self) -> None:
        self.clusters: dict[int, FakeCluster] = {}
        self.calls: list[str] = []
        self.hook: Hook = _nothing
        self.next_cluster_id = 1
        self.params = {"FULL_HOSTNAME": "ap.example.org"}

    # --- the calls ---

    async def submit(self, description: Mapping[str, SubmitValue], *, count: int) -> Submitted:
        """Take a cluster and write its submit events."""
        await self._before("submit")
        if not _exists(str(description["transfer_input_files"]).rpartition(",")[2]):
            raise CondorRefused("the envfile is not there")
        uuid = str(description["+EWMSTaskforceUUID"]).strip('"')
        cluster = FakeCluster(self.next_cluster_id, uuid, dict(description), count)
        self.next_cluster_id += 1
        self.clusters[cluster.cluster_id] = cluster
        note = f"\n    {description['submit_event_user_notes']}"
        self._write(cluster, "035", -1, f"Cluster submitted from host: <127.0.0.1:9618>{note}")
        for proc in range(count):
            self._write(cluster, "000", proc, f"Job submitted from host: <127.0.0.1:9618>{note}")
        await self.hook("submit", "after")
        return Submitted(cluster.cluster_id, count)

    async def query(self, constraint: str, projection: Sequence[str], *, cluster_ads: bool = False) -> list[Ad]:
        """Clusters in the queue; one ad each. For `hook`, housekeeping's question is a call of its own: `survey`."""
        call = "survey" if constraint == _CLUSTERS else "query"
        await self._before(call)
        found = [cluster.ad() for cluster in self._matching(constraint) if cluster.is_queued]
        await self.hook(call, "after")
        return _projected(found, projection)

    async def history(
        self, constraint: str, projection: Sequence[str], *, match: int | None = None, since: str | None = None
    ) -> list[Ad]:
        """Clusters that left the queue, newest first."""
        await self._before("history")
        found = [cluster.ad() for cluster in self._matching(constraint) if not cluster.is_queued]
        await self.hook("history", "after")
        return _projected(found[::-1][:match], projection)

    async def act(self, action: Action, constraint: str, *, reason: str) -> Acted:
        """Only `remove`."""
        await self._before("act")
        assert action == "remove"
        removed = 0
        for cluster in self._matching(constraint):
            if cluster.is_queued:
                removed += cluster.n_procs + 1  # HTCondor counts a job factory's cluster, too
                self._end(cluster, "009", f"Job was aborted.\n\t{reason}")
        await self.hook("act", "after")
        return Acted(removed, 0)

    async def parse(self, expression: str) -> str:
        """Only parentheses are checked."""
        await self._before("parse")
        depth = 0
        for char in expression:
            depth += (char == "(") - (char == ")")
            if depth < 0:
                break
        if depth:
            raise CondorRefused(f"unbalanced parentheses in {expression}")
        await self.hook("parse", "after")
        return expression

    async def evaluate(self, expression: str) -> Value:
        """Really evaluated."""
        await self._before("evaluate")
        value = _evaluated(expression)
        if type(value) not in (bool, int, float, str):
            raise CondorRefused(f"{expression} evaluates to {value!r}")
        await self.hook("evaluate", "after")
        return cast("Value", value)

    async def param(self, name: str) -> str | None:
        """One of `params`."""
        await self._before("param")
        return self.params.get(name)

    # --- what a test does ---

    def finish(self, cluster_id: int) -> None:
        """All jobs of the cluster end well."""
        text = "Job terminated.\n\t(1) Normal termination (return value 0)"
        self._end(self.clusters[cluster_id], "005", text)

    @property
    def queued(self) -> list[FakeCluster]:
        """The clusters in the queue."""
        return [cluster for cluster in self.clusters.values() if cluster.is_queued]

    def write(self, cluster_id: int, number: str, proc: int, text: str) -> None:
        """One more event of a cluster (proc -1: of the cluster itself), as HTCondor would log it."""
        self._write(self.clusters[cluster_id], number, proc, text)

    # --- how ---

    async def _before(self, call: str) -> None:
        self.calls.append(call)
        await self.hook(call, "before")

    def _matching(self, constraint: str) -> Iterator[FakeCluster]:
        uuid, cluster_id = _UUID.search(constraint), _CLUSTER.search(constraint)
        assert uuid or cluster_id or _CLUSTERS in constraint, constraint
        for cluster in self.clusters.values():
            if uuid and cluster.uuid != uuid.group(1):
                continue
            if cluster_id and cluster.cluster_id != int(cluster_id.group(1)):
                continue
            yield cluster

    def _end(self, cluster: FakeCluster, number: str, text: str) -> None:
        for proc in range(cluster.n_procs):
            self._write(cluster, number, proc, text)
        how = "Complete" if number == "005" else "Incomplete"
        self._write(cluster, "036", -1, f"Cluster removed\n\tMaterialized {cluster.n_procs} jobs from 0 items.\t{how}")
        cluster.is_queued = False

    def _write(self, cluster: FakeCluster, number: str, proc: int, text: str) -> None:
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        with cluster.log_path.open("a") as log:
            log.write(f"{number} ({cluster.cluster_id:03d}.{proc:03d}.000) {moment} {text}\n...\n")
