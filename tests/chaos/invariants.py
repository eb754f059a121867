"""What must be true whatever happens: judges of what was seen from outside (pure). Each says what is wrong."""

import math
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from ewms.wms.models import Phase

_JWT: Final = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")
_LIVING: Final = ("IDLE", "RUNNING", "HELD")
_SHOWN: Final = 5


@attrs.frozen
class Output:
    """One message of an outgoing queue."""

    data: str
    event_id: str
    """The output's own: whoever drops what he has already knows it by this."""


@attrs.frozen
class Flow:
    """The events of one workflow: what a user put in, and all that can be found afterwards."""

    name: str
    sent: Sequence[str]
    outputs: Sequence[Output]
    left: Sequence[str]
    """In the incoming queue still, or again."""
    ran_to_its_end: bool
    """It was given the time for all of its events; else it was stopped before."""
    interruptions: int
    """How many times one of its pilots was disturbed, between whose publishing and acknowledging there is one event."""

    @property
    def lost(self) -> list[str]:
        """Events that are nowhere."""
        return sorted({*self.sent} - {output.data for output in self.outputs} - {*self.left})

    @property
    def duplicates(self) -> int:
        """Outputs beyond each event's first, and events that are there to be done again though they have one."""
        done = {output.data for output in self.outputs}
        return len(self.outputs) - len(done) + sum(event in done for event in self.left)

    @property
    def repeated(self) -> list[str]:
        """Events with duplicates."""
        outputs = Counter(output.data for output in self.outputs)
        return sorted(event for event, times in outputs.items() if times > 1 or event in {*self.left})


def judge_flow(flow: Flow) -> list[str]:
    """No event is lost or made up, and who drops outputs by their ids keeps each event's once."""
    problems = []
    if flow.lost:
        problems.append(f"{flow.name}: {len(flow.lost)} events lost: {_some(flow.lost)}")
    made_up = {output.data for output in flow.outputs} - {*flow.sent}
    if made_up:
        problems.append(f"{flow.name}: outputs of events that nobody sent: {_some(sorted(made_up))}")
    without = sorted({*flow.left} - {output.data for output in flow.outputs})
    if flow.ran_to_its_end and without:
        problems.append(f"{flow.name}: {len(without)} events were never done: {_some(without)}")
    ids: dict[str, set[str]] = defaultdict(set)
    for output in flow.outputs:
        ids[output.data].add(output.event_id)
    several = sorted(data for data, found in ids.items() if len(found) > 1)
    if several:
        problems.append(f"{flow.name}: duplicates that cannot be told by their ids: {_some(several)}")
    if len({output.event_id for output in flow.outputs}) < len(ids):
        problems.append(f"{flow.name}: outputs of different events have one id")
    if len(flow.repeated) > flow.interruptions:
        problems.append(
            f"{flow.name}: {len(flow.repeated)} events have duplicates, but its pilots were interrupted only "
            f"{flow.interruptions} times: {_some(flow.repeated)}"
        )
    return problems


@attrs.define
class Harm:
    """A time in which log events may have been lost (epoch s)."""

    begin: float
    end: float = math.inf


@attrs.frozen
class Fate:
    """A taskforce at the end."""

    name: str
    clusters: Collection[int]
    """All that were ever seen: in the queue, at any time, or in the history."""
    queued: Collection[int]
    document: Mapping[str, Any]
    """As the WMS has it."""
    was_withdrawn: bool = False
    """Its workflow was aborted at once; it may have had a cluster or not."""
    harms: Sequence[Harm] = ()
    """When what the day logs said may have been lost."""

    @property
    def log_was_harmed(self) -> bool:
        """It lived in such a time: what the log said of it may be gone. What had ended before is known."""
        ends = [each["timestamp"] for each in self.document["phase_change_log"] if _is_end(each)]
        return any(
            harm.end >= self.document["timestamp"] and harm.begin <= min(ends, default=math.inf) for harm in self.harms
        )


def _is_end(change: Mapping[str, Any]) -> bool:
    return bool(change["was_successful"]) and change["target_phase"] == Phase.CONDOR_COMPLETE


_END: Final = frozenset({Phase.CONDOR_COMPLETE})


def judge_fate(fate: Fate) -> list[str]:
    """One cluster, known to the WMS, ended, and told so in the end."""
    problems = []
    allowed = (0, 1) if fate.was_withdrawn else (1,)
    if len(fate.clusters) not in allowed:
        problems.append(f"{fate.name}: {len(fate.clusters)} clusters: {sorted(fate.clusters)}")
    if fate.queued:
        problems.append(f"{fate.name}: was stopped, and is in the queue: {sorted(fate.queued)}")
    phase, cluster_id = fate.document["phase"], fate.document["cluster_id"]
    if cluster_id is None and fate.was_withdrawn:
        return problems  # the WMS has nothing to hear of it
    if cluster_id not in fate.clusters:
        problems.append(f"{fate.name}: the WMS has cluster {cluster_id}, true are {sorted(fate.clusters)}")
    if phase != Phase.CONDOR_COMPLETE:
        problems.append(f"{fate.name}: the WMS has it as {phase}")
    changes = [each["target_phase"] for each in fate.document["phase_change_log"] if each["was_successful"]]
    if changes.count(Phase.CONDOR_SUBMIT) != 1:
        problems.append(f"{fate.name}: the WMS heard of its start {changes.count(Phase.CONDOR_SUBMIT)} times")
    # A TMS that heard no answer, or was killed before it wrote it down, tells the end again.
    if Phase.CONDOR_COMPLETE not in changes or set(changes[changes.index(Phase.CONDOR_COMPLETE) :]) != _END:
        problems.append(f"{fate.name}: what the WMS heard does not end with its end: {changes}")
    return problems + _judge_statuses(fate)


def _judge_statuses(fate: Fate) -> list[str]:
    statuses: Mapping[str, Mapping[str, int]] = fate.document["compound_statuses"]
    if any(status.startswith(_LIVING) for status in statuses):
        return [f"{fate.name}: its last statuses are not the end: {dict(statuses)}"]
    jobs = sum(sum(pilots.values()) for pilots in statuses.values())
    if jobs != fate.document["n_workers"] and not fate.log_was_harmed:
        return [f"{fate.name}: {fate.document['n_workers']} workers, the last statuses have {jobs}: {dict(statuses)}"]
    return []


def judge_listening(name: str, consumers: int | None, pilots: int) -> list[str]:
    """As many consumers as living pilots: one that does not listen, or that listens after its end, is never seen else.

    `consumers` None: the broker cannot say.
    """
    if consumers is None or consumers == pilots:
        return []
    return [f"{name}: {pilots} pilots live, its queue has {consumers} consumers"]


def judge_orphans(kind: str, before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Nothing is left that was not there before: processes, mounts, sandboxes."""
    left = sorted((Counter(after) - Counter(before)).elements())
    return [f"{len(left)} {kind} left: {_some(left)}"] if left else []


@attrs.frozen
class Leak:
    """Where a secret was seen."""

    place: str
    secret: str
    """What it is, not what it says."""


def leaks(place: str, text: bytes, secrets: Mapping[str, bytes]) -> list[Leak]:
    """The secrets in a text; every signed token is one."""
    found = [Leak(place, name) for name, secret in secrets.items() if secret and secret in text]
    return found + ([Leak(place, "a signed token")] if _JWT.search(text) else [])


def judge_file(place: str, mode: int, content: bytes, secrets: Mapping[str, bytes], *, may_hold: bool) -> list[str]:
    """A secret is only where it belongs, and then for its owner alone."""
    found = leaks(place, content, secrets)
    if may_hold:
        found = found if stat.S_IMODE(mode) & 0o077 else []
    return [f"{leak.secret} stands in {leak.place} (mode {stat.S_IMODE(mode):o})" for leak in found]


def _some(things: Sequence[str]) -> str:
    return ", ".join(things[:_SHOWN]) + (", …" if len(things) > _SHOWN else "")
