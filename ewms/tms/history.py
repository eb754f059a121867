"""The schedd's history as one witness of several for a cluster that an earlier attempt may have left.

It can be switched off, not be kept, or be damaged. Then the others have to do, and they do: the ledger says that
something was tried, the queue has every cluster that lives, and the job event log, which housekeeping keeps as long as
a start is not settled, has the submit event of each. What no answer ever means is "not there": a queue that does not
answer is waited for.
"""

import math
from collections.abc import Collection
from typing import Final

import structlog
import trio

from ewms.tms import lookup
from ewms.tms.condor.base import CondorBroken, CondorRefused, CondorUnreachable, Schedd
from ewms.tms.decisions import Cluster
from ewms.tms.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)

PATIENCE: Final = 300.0
"""For how long, in s, an answer is waited for while the queue does answer."""


class History:
    """Asks the history, and knows whether it can be asked."""

    def __init__(self, schedd: Schedd, metrics: Metrics) -> None:
        self._schedd = schedd
        self._metrics = metrics
        self._is_said = False
        self._silent_since = self._last_silence = -math.inf

    async def clusters(self, uuid: str, former: Collection[int]) -> list[Cluster]:
        """As `lookup.in_history`; none when the history cannot be asked: the other witnesses have to do.

        Raises:
            CondorUnreachable: no answer yet; the queue has just answered, so ask again.
        """
        try:
            found = await lookup.in_history(self._schedd, uuid, former)
        except (CondorRefused, CondorBroken) as refusal:
            self._say(str(refusal))
            return []
        except CondorUnreachable as trouble:
            if not self._is_silent_for_long():
                raise
            self._say(f"no answer for {PATIENCE:g} s: {trouble}")
            return []
        self._unsay()
        return found

    def _is_silent_for_long(self) -> bool:
        now = trio.current_time()
        if now - self._last_silence > PATIENCE:  # that was another silence
            self._silent_since = now
        self._last_silence = now
        return now - self._silent_since >= PATIENCE

    def _say(self, reason: str) -> None:
        self._metrics.history_missing.set(1)
        if not self._is_said:
            log.warning(
                "the schedd's history cannot be asked: earlier clusters are looked for in ledger, queue and logs only",
                error=reason,
                advice="let condor_history work here: HISTORY is set, HISTORY_HELPER_MAX_CONCURRENCY is not 0",
            )
        self._is_said = True

    def _unsay(self) -> None:
        self._metrics.history_missing.set(0)
        self._silent_since = self._last_silence = -math.inf
        if self._is_said:
            log.info("the schedd's history can be asked again")
        self._is_said = False
