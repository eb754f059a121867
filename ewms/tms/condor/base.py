"""What the TMS asks of a schedd: the calls, their results and their errors.

The TMS talks to a schedd through a helper process: one JSON object a line on its standard input and output.

    → {"id": 7, "call": "query", "args": {"constraint": "…", "projection": ["ClusterId"], "cluster_ads": true}}
    ← {"id": 7, "ok": [{"ClusterId": 18}]}
    ← {"id": 7, "error": {"kind": "refused", "message": "what HTCondor said"}}

`kind` is `refused` (the schedd or the submit parser said no: the same call will fail again), `unreachable` (no answer:
try later) or `bug` (the helper was asked for nonsense, or failed in a way that it does not know; `trace` is its
traceback then). A ClassAd expression that is not a plain number, string or boolean travels as its text; UNDEFINED as
null.

Two programs speak it: `ewms.tms.condor.helper` (htcondor2, the real schedd) and `ewms.testing.schedd.helper` (the
embedded schedd).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import attrs

Value = str | int | float | bool | None
Ad = Mapping[str, Value]
Action = Literal["remove", "hold", "release", "vacate"]
SubmitValue = str | int | float | bool


@attrs.frozen
class Submitted:
    """A cluster that the schedd took (`htcondor2.SubmitResult`)."""

    cluster_id: int
    n_procs: int


@attrs.frozen
class Acted:
    """How many jobs an action met (`TotalSuccess`; a factory's cluster ad counts too), and on how many it failed."""

    succeeded: int
    failed: int


class CondorError(Exception):
    """A schedd call did not succeed."""


class CondorRefused(CondorError):
    """HTCondor said no, in its own words; the same call will be refused again."""


class CondorUnreachable(CondorError):
    """No answer from the schedd: it may or may not have done what it was asked."""


class CondorBroken(CondorError):
    """Our own side failed: a bug, or HTCondor's bindings cannot be used. It may or may not have been done."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace
        """What the helper said of it: a traceback, as far as there is one."""


class JobQueue(Protocol):
    """The one call of those who only look."""

    async def query(self, constraint: str, projection: Sequence[str], *, cluster_ads: bool = False) -> list[Ad]:
        """`htcondor2.Schedd.query`; `cluster_ads` includes the ads of clusters (`QueryOpt.IncludeClusterAd`)."""


class Schedd(JobQueue, Protocol):
    """The schedd calls of the TMS (`schedd.py` is the one implementation, over a helper process).

    Every call may raise `CondorRefused`, `CondorUnreachable` or `CondorBroken`, and may be cancelled: the helper is
    killed then, and a submit or act that was under way may or may not have happened.
    """

    async def submit(self, description: Mapping[str, SubmitValue], *, count: int) -> Submitted:
        """`htcondor2.Schedd.submit` of one cluster with `count` procs."""

    async def history(
        self,
        constraint: str,
        projection: Sequence[str],
        *,
        match: int | None = None,
        since: str | None = None,
    ) -> list[Ad]:
        """`htcondor2.Schedd.history`, newest first."""

    async def act(self, action: Action, constraint: str, *, reason: str) -> Acted:
        """`htcondor2.Schedd.act`."""

    async def parse(self, expression: str) -> str:
        """Parse a ClassAd expression and give it back in canonical form; `CondorRefused` says what is wrong with it."""

    async def evaluate(self, expression: str) -> Value:
        """The value of a ClassAd expression that needs no ad; `CondorRefused` when it has none, or is none."""

    async def param(self, name: str) -> str | None:
        """One HTCondor configuration value (`htcondor2.param`)."""
