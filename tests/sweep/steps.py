"""The names of the steps at which a TMS can be killed (pure).

A step is named by what can be seen of it from outside, so that a new one is found and not listed:

    tms:started · helper:started
    disk:VERB:FILE                      about to happen
    schedd:CALL:sent · schedd:CALL:acted     the helper has the request · it has the schedd's answer, the TMS has not
    wms:METHOD:CALL:arrived · …:acted        the WMS has the request · it has acted, the TMS has no answer
"""

import re
from typing import Final

import attrs

from ewms.testing.wms import Request

_NOISE: Final = frozenset({"", "v1", "tms", "taskforces", "auth", "realms", "standin", "protocol"})
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_RANDOM: Final = re.compile(r"\.[a-z0-9_]{8}$")
"""How the standard library ends the names of temporary files."""
_UUID: Final = re.compile(r"TF(-[0-9a-f]+)+")


@attrs.frozen(order=True)
class Point:
    """A step, and which time it is that it is reached."""

    step: str
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{self.step}#{self.occurrence}"


def parse_point(text: str) -> Point:
    """The inverse of `str`."""
    step, _, occurrence = text.rpartition("#")
    return Point(step, int(occurrence))


def local_step(said: str, uuid: str) -> str | None:
    """The name of what a process says it is about to do; None when that is about another taskforce."""
    step = _RANDOM.sub(".RANDOM", _DAY.sub("DAY", said.replace(uuid, "TF")))
    return None if _UUID.search(step) else step


def is_poll(request: Request) -> bool:
    """Whether it is a question that is asked again and again: only an answer with our taskforce is a step."""
    return request.method == "GET" and bool(request.query)


def wms_call(request: Request, uuid: str) -> str | None:
    """The name of a call; None when it is about other taskforces only."""
    parts = [part for part in request.path.split("/") if part not in _NOISE]
    named = [part for part in parts if part != uuid]
    about_others = _UUID.search(" ".join(named)) or (named == ["statuses"] and uuid not in str(request.body))
    return None if about_others else f"wms:{request.method}:{'/'.join(named) or 'taskforce'}"
