"""`python -m ewms.tms.condor.helper`: the calls of `base.Schedd`, made with the HTCondor bindings.

The bindings hold the interpreter lock while they wait for the schedd, for 20 s and more; therefore they live in a
process of their own, which the TMS may kill at any time. It works one request at a time, reads the next one only after
the last one was answered, and ends when its standard input does: when the TMS has died, a submit that is under way is
still finished. Signals that a service manager or a terminal sends to all processes of the service are ignored for the
same reason.
"""

import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, BinaryIO, Final, cast

import classad2
import htcondor2

from ewms.tms.condor.ads import plain
from ewms.tms.condor.base import Value
from ewms.tms.condor.wire import (
    ErrorKind,
    Failure,
    Reply,
    Request,
    WireError,
    decode_request,
    encode_reply,
    misfit,
)


class _RefusedError(Exception):
    """What HTCondor would do something else with than was meant."""


# --- the calls ---


def submit(description: Mapping[str, Any], count: int) -> dict[str, int]:
    """`{"cluster_id": …, "n_procs": …}` of the new cluster."""
    if count < 1:
        raise _RefusedError(f"count {count}: HTCondor would make one job of it")
    for key, value in description.items():
        _check_submit_line(key, str(value))
    text = htcondor2.Submit(dict(description))
    result = htcondor2.Schedd().submit(text, count=count)
    return {"cluster_id": result.cluster(), "n_procs": result.num_procs()}


def query(constraint: str, projection: list[str], cluster_ads: bool = False) -> list[dict[str, Value]]:
    """Ads of the queue; with `cluster_ads` those of clusters too."""
    _check_expression(constraint)
    opts = htcondor2.QueryOpt.IncludeClusterAd if cluster_ads else htcondor2.QueryOpt.Default
    return [plain(ad) for ad in htcondor2.Schedd().query(constraint, projection, opts=opts)]


def history(
    constraint: str,
    projection: list[str],
    match: int | None = None,
    since: str | None = None,
) -> list[dict[str, Value]]:
    """Ads of procs that left the queue, newest first."""
    _check_expression(constraint)
    # The bindings take a cluster id as an int only (a string of digits would be read as an expression that is true).
    until: int | str | None = int(since) if since is not None and since.isdigit() else since
    ads = htcondor2.Schedd().history(constraint, projection, match=-1 if match is None else match, since=until)
    return [plain(ad) for ad in ads]


def act(action: str, constraint: str, reason: str) -> dict[str, int]:
    """`{"succeeded": …, "failed": …}`.

    The reason arrives only as a tuple with a code, and in one line: HTCondor drops a plain text and one with more.
    """
    _check_expression(constraint)
    job_action = _ACTIONS[action]
    result = htcondor2.Schedd().act(job_action, constraint, reason=(" ".join(reason.split()), 0))
    failed = ("TotalError", "TotalBadStatus", "TotalPermissionDenied")
    return {"succeeded": int(result["TotalSuccess"]), "failed": sum(int(result[name]) for name in failed)}


def parse(expression: str) -> str:
    """The canonical form of a ClassAd expression."""
    return repr(_check_expression(expression))  # its str() breaks lists over several lines


def evaluate(expression: str) -> Value:
    """The value of an expression without any ad."""
    value = _check_expression(expression).eval()
    # Not isinstance: the bindings' UNDEFINED and ERROR are ints too.
    if type(value) not in (bool, int, float, str):
        raise _RefusedError(f"{expression!r} evaluates to {value!r}")
    return cast("Value", value)


def param(name: str) -> str | None:
    """One configuration value; None when it is not set."""
    value: str | None = htcondor2.param.get(name)
    return value


CALLS: Final[Mapping[str, Callable[..., Any]]] = {
    "submit": submit,
    "query": query,
    "history": history,
    "act": act,
    "parse": parse,
    "evaluate": evaluate,
    "param": param,
}

_ACTIONS: Final = {
    "remove": htcondor2.JobAction.Remove,
    "hold": htcondor2.JobAction.Hold,
    "release": htcondor2.JobAction.Release,
    "vacate": htcondor2.JobAction.Vacate,
}


def _check_submit_line(key: str, value: str) -> None:
    # The bindings paste "key = value" lines into one text: a newline would begin another submit command, a backslash
    # at the end would swallow the next one.
    if not re.fullmatch(r"\+?[A-Za-z_][\w.]*", key):
        raise _RefusedError(f"not a submit command: {key!r}")
    if re.search(r"[\r\n\0]", value) or value.endswith("\\"):
        raise _RefusedError(f"the value of {key} may neither hold a line break or NUL nor end with a backslash")


@lru_cache(maxsize=256)  # taskforces mostly have the same ones, and the bindings (25.14) lose 0.4 kB with each
def _check_expression(text: str) -> Any:
    try:
        return classad2.ExprTree(text)
    except classad2.ClassAdException as error:
        raise _RefusedError(f"{error} {text!r}") from error


# --- HTCondor's answers → ours ---

_REFUSALS: Final = {
    # Said no, before anything was committed.
    "submit": re.compile(
        r"Failed to create (a cluster|job) ad"
        r"|Failed to make submit digest"
        r"|expected next ProcId to be \d+, but Schedd says -([2-9]|\d\d)"  # -1 is a lost connection
        # With the schedd's own words; without any, or with the network's, nobody knows whether it was committed.
        r"|(Unable to commit transaction,|Failed to create new cluster\.) *(?!CEDAR|SECMAN|AUTHENTICATE|DAEMON)\S"
    ),
    # Switched off, not kept, or damaged.
    "history": re.compile(
        r"Remote history has been disabled"
        r"|\w+ undefined in remote configuration"
        r"|Failed to launch history helper"
        r"|Remote side had parse errors in history file"
    ),
}
"""Texts of an HTCondorException that mean: the schedd said no, and will say so again."""


def failure_kind(call: str, error: Exception) -> ErrorKind:
    """Which kind of failure an exception of the bindings is.

    An HTCondorException without such a text means that there was no answer. ValueError and TypeError are the submit
    parser's; wherever else they come from, and whatever else comes, nobody has thought of it: a bug.
    """
    if isinstance(error, htcondor2.HTCondorException):
        refusals = _REFUSALS.get(call)
        return "refused" if refusals and refusals.match(str(error)) else "unreachable"
    if isinstance(error, _RefusedError) or (call == "submit" and isinstance(error, (ValueError, TypeError))):
        return "refused"
    return "bug"


def answer(request: Request) -> Reply:
    """Make the call; its failures are part of the reply."""
    call = CALLS.get(request.call)
    reason = f"no such call: {request.call}" if call is None else misfit(call, request.args)
    if call is None or reason is not None:
        return Reply(request.id, failure=Failure("bug", str(reason)))
    try:
        return Reply(request.id, value=call(**request.args))
    except Exception as error:  # noqa: BLE001  the TMS has to hear of whatever it is
        kind = failure_kind(request.call, error)
        if kind == "bug":
            failure = Failure(kind, f"{type(error).__name__}: {error}", traceback.format_exc())
        else:
            failure = Failure(kind, str(error))
        return Reply(request.id, failure=failure)


# --- the process ---


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer line by line until the requests end."""
    for line in requests:
        try:
            reply = answer(decode_request(line))
        except WireError as error:
            reply = Reply(None, failure=Failure("bug", str(error)))
        replies.write(encode_reply(reply))
        replies.flush()


def main() -> None:
    """Serve on standard input and output; whatever the bindings print goes to standard error."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    warnings.simplefilter("always")  # a warning comes after the commit: show each, raise none
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        with replies:
            serve(sys.stdin.buffer, replies)
    except BrokenPipeError:
        sys.exit(0)  # the TMS has died; nobody reads the answer


if __name__ == "__main__":
    main()
