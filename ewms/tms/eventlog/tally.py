"""One log's events → what is known of each cluster in it (pure).

The cost follows the new bytes: no object is made for an event that changes nothing, and a job's state is one number.
What a cut of the bytes into pieces looked like can never be told from the result.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, Final

from ewms.contract import CHIRP_PREFIX, ChirpAttribute
from ewms.tms.eventlog import statuses
from ewms.tms.eventlog.cluster import Cluster, JsonObject
from ewms.tms.eventlog.format import Event, Frames, classad_value, event_time, frames, taskforce_named, text_of
from ewms.tms.eventlog.statuses import CHIRP, EFFECTS, ENDED, NEW_RUN, NO_EFFECT, SPECIAL

_PREFIX: Final = CHIRP_PREFIX.encode()
_STATUS: Final = f"{ChirpAttribute.STATUS}: ".removeprefix(CHIRP_PREFIX).encode()
_ERROR: Final = f"{ChirpAttribute.ERROR}: ".removeprefix(CHIRP_PREFIX).encode()
_TOLD: Final = (_STATUS + b'"', _ERROR + b'"')
"""How the chirps begin that count."""
_ENDING: Final = frozenset(number for number, effect in EFFECTS.items() if effect.status in ENDED)
_MAX_STATUS: Final = 60  # characters
_MAX_SIGNS: Final = 200  # a pilot's status could be any text
_HOLD_CODE: Final = re.compile(rb"\n\tHoldCode \d")


class Tally:
    """The clusters of one log, by their ids; `near` is the log's day, which gives legacy dates their year."""

    def __init__(self, near: date = date(1970, 1, 1)) -> None:
        self.near = near
        self.clusters: dict[int, Cluster] = {}
        self.changed: set[int] = set()
        """Ids of clusters that changed; who reports them empties it."""
        self.events = 0
        self.damaged = 0
        self._news: set[int] = set()
        self._dumps: dict[int, JsonObject] = {}
        """Of clusters that did not change since: a snapshot costs what changed."""
        self._by_text: dict[bytes, Cluster] = {}
        """The same clusters, by their ids as they stand in the log."""
        self._special: Mapping[bytes, Callable[[Cluster, int, bytes], bool]] = {
            statuses.SUBMITTED: self._submitted,
            statuses.HELD: lambda cluster, proc, event: proc >= 0 and cluster.hold(proc, statuses.hold_reason(event)),
            statuses.AD: self._ad,
            statuses.CLUSTER_SUBMITTED: self._cluster_submitted,
            statuses.CLUSTER_REMOVED: self._cluster_removed,
            statuses.PAUSED: self._paused,
            statuses.RESUMED: self._resumed,
        }
        assert self._special.keys() == SPECIAL

    def feed(self, data: bytes, *, again: bool = False) -> Frames:
        """Take whole events (what `format.cut` allows), in the order of the log; returns them.

        `again` says that they may have been taken before, by this tally: then no job that has ended begins anew. The
        event that ended it may be in a part of the log that was lost since.
        """
        found = frames(data)
        self.events += found.count
        self.damaged += found.damaged
        # A lazy filter: each event is looked at when those before it have been taken.
        self._take(filter(self._is_of_the_living, found.events) if again else found.events)
        self._note_news()
        return found

    def _is_of_the_living(self, event: Event) -> bool:
        cluster = self.clusters.get(int(event[2]))
        return cluster is None or not cluster.has_ended(int(event[3]))

    def _take(self, events: Iterable[Event]) -> None:  # noqa: C901  one loop, see there
        by_text = self._by_text
        # The inner loop of the TMS: a million events a second, of which a third comes here. What changes nothing is
        # skipped early, a function call is dear, and what is rare is done elsewhere.
        for event, number, cluster_text, proc_text in events:
            sign = number
            if number == CHIRP:
                start = event.find(_PREFIX) + len(_PREFIX)
                if not event.startswith(_TOLD, start):
                    continue
                sign = event[start:]
            elif number in NO_EFFECT:
                continue
            cluster = by_text.get(cluster_text) or self._cluster(cluster_text)
            proc = int(proc_text)
            if cluster.closed or (proc >= len(cluster.codes) and not cluster.reach(proc)):
                continue
            moves = cluster.moves.get(sign)
            if moves is None:
                moves = self._rare(cluster, proc, sign, event)
                if moves is None:
                    continue
            if proc < 0:
                continue
            old = cluster.codes[proc]
            new = moves.get(old)
            if new is None:
                new = moves[old] = self._learn(cluster, sign, old)
            if new != old:
                cluster.codes[proc] = new
                cluster.counts[old] -= 1
                cluster.counts[new] += 1
                self._news.add(cluster.cluster_id)
                if sign in _ENDING:
                    cluster.ends.append(event)
            if cluster.errors and sign in NEW_RUN and cluster.forget_error(proc):
                self._news.add(cluster.cluster_id)

    def _note_news(self) -> None:
        self.changed |= self._news
        for cluster_id in self._news:
            self._dumps.pop(cluster_id, None)
            self.clusters[cluster_id].note_ends(self.near)
        self._news.clear()

    def _cluster(self, text: bytes) -> Cluster:
        cluster_id = int(text)
        cluster = self.clusters.get(cluster_id)
        if cluster is None:
            cluster = self.clusters[cluster_id] = Cluster(cluster_id)
        self._by_text[text] = cluster
        return cluster

    def _learn(self, cluster: Cluster, sign: bytes, old: int) -> int:
        if sign.startswith(_STATUS):
            return cluster.after_told(classad_value(sign[len(_STATUS) :])[:_MAX_STATUS], old)
        return cluster.after(sign, old)

    def _rare(self, cluster: Cluster, proc: int, sign: bytes, event: bytes) -> dict[int, int] | None:
        """What no move is known for: the moves to fill in, or None if all was done here."""
        if sign == statuses.SUBMITTED and cluster.named_by_note:
            return cluster.moves.setdefault(sign, {})
        if sign in self._special:
            if self._special[sign](cluster, proc, event):
                self._news.add(cluster.cluster_id)
        elif sign in EFFECTS or sign.startswith(_STATUS):
            return cluster.moves.setdefault(sign, {}) if len(cluster.moves) < _MAX_SIGNS else {}
        elif sign.startswith(_ERROR):
            if proc >= 0 and cluster.fail(proc, classad_value(sign[len(_ERROR) :])):
                self._news.add(cluster.cluster_id)
        elif not event[:3].isdigit():
            self.events, self.damaged = self.events - 1, self.damaged + 1
        return None

    # --- events that say more than their number; each returns whether anything changed ---

    def _submitted(self, cluster: Cluster, proc: int, event: bytes) -> bool:
        named = self._name(cluster, event)
        return (proc >= 0 and cluster.submit(proc)) or named

    def _cluster_submitted(self, cluster: Cluster, _proc: int, event: bytes) -> bool:
        cluster.factory = True
        self._name(cluster, event)
        return True

    def _name(self, cluster: Cluster, event: bytes) -> bool:
        if cluster.named_by_note or (uuid := taskforce_named(event)) is None:
            return False
        cluster.uuid, cluster.named_by_note = uuid, True
        return True

    def _ad(self, cluster: Cluster, _proc: int, event: bytes) -> bool:
        # Today's TMS asks for these after every event; a note on a submit event is the better witness.
        if cluster.uuid is not None or (uuid := taskforce_named(event)) is None:
            return False
        cluster.uuid = uuid
        return True

    def _cluster_removed(self, cluster: Cluster, _proc: int, event: bytes) -> bool:
        cluster.note_ends(self.near)
        return cluster.close(event_time(event, self.near))

    def _paused(self, cluster: Cluster, _proc: int, event: bytes) -> bool:
        if _HOLD_CODE.search(event):
            return False  # an operator's hold, for an operator to release
        lines = event.split(b"\n\t", 2)
        cluster.paused = text_of(lines[1]) if len(lines) > 1 else "no reason given"
        return True

    def _resumed(self, cluster: Cluster, _proc: int, _event: bytes) -> bool:
        was, cluster.paused = cluster.paused, None
        return was is not None

    # --- on disk ---

    def dump(self) -> JsonObject:
        """All of it, as JSON values."""
        clusters = [self._dump(cluster) for cluster in self.clusters.values()]
        return {"events": self.events, "damaged": self.damaged, "clusters": clusters}

    def _dump(self, cluster: Cluster) -> JsonObject:
        dumped = self._dumps.get(cluster.cluster_id)
        if dumped is None or dumped["closed"] is not cluster.closed:  # the schedd may have closed it
            dumped = self._dumps[cluster.cluster_id] = cluster.dump()
        return dumped

    @classmethod
    def load(cls, saved: Mapping[str, Any], near: date) -> "Tally":
        """What `dump` gave, everything marked as changed; raises ValueError, KeyError or TypeError if it did not."""
        self = cls(near)
        self.events, self.damaged = int(saved["events"]), int(saved["damaged"])
        for each in saved["clusters"]:
            cluster = Cluster.load(each)
            self.clusters[cluster.cluster_id] = cluster
        self.changed.update(self.clusters)
        return self
