"""How long this worker may still run, and what it gets after SIGTERM: read from the job's and the machine's ads; pure.

HTCondor writes both ads once, at job start. There is no ClassAd parser in a pilot: a value that is neither a number
nor a product of numbers counts as absent, and is told.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

import attrs

SAFETY_S: Final = 10.0
"""Taken off the vacate time: verdicts, last chirps and the exit itself need some."""
NO_LIMIT: Final = 2147483647
"""How a machine says that it has no limit."""

_LINE: Final = re.compile(r"^\s*(?P<name>[A-Za-z_][\w.]*)\s*=\s*(?P<value>.*?)\s*$")
_PRODUCT: Final = re.compile(r"^-?\d+(?:\.\d+)?(?:\s*\*\s*\d+(?:\.\d+)?)*$")

_RUN_LIMITS: Final = ("AllowedExecuteDuration", "AllowedJobDuration")
_MACHINE_REMAINING: Final = ("TimeToLive",)
_MACHINE_ENDS: Final = ("GLIDEIN_ToDie",)


@attrs.frozen
class Lease:
    """What is known of this worker's time."""

    ends: float | None = None
    """Epoch s at which it is over; None when nothing limits it."""
    grace: float = SAFETY_S
    """s that running tasks get after SIGTERM."""
    not_understood: tuple[str, ...] = ()
    """A line for each limit that was not understood."""


def read(job_ad: str, machine_ad: str, now: float) -> Lease:
    """The lease as the texts of the two ads ("" where there is none) say at `now`, the job's start (epoch s)."""
    job, machine = attributes(job_ad), attributes(machine_ad)
    unclear: list[str] = []

    def limit(ad: Mapping[str, str], name: str) -> float | None:
        if (text := ad.get(name.lower())) is None or text.lower() == "undefined":
            return None
        value = number(text)
        if value is None:
            unclear.append(f"an ad of this job is not understood: {name} = {text}")
        return None if value is None or not 0 < value < NO_LIMIT else value

    spans = [limit(job, name) for name in _RUN_LIMITS] + [limit(machine, name) for name in _MACHINE_REMAINING]
    ends = [now + span for span in spans if span is not None]
    ends += [moment for name in _MACHINE_ENDS if (moment := limit(machine, name)) is not None]
    vacate = [
        value for value in (limit(job, "JobMaxVacateTime"), limit(machine, "MachineMaxVacateTime")) if value is not None
    ]
    return Lease(
        ends=min(ends, default=None),
        grace=max(0.0, min(vacate) - SAFETY_S) if vacate else SAFETY_S,
        not_understood=tuple(unclear),
    )


def attributes(ad: str) -> dict[str, str]:
    """Lower-case attribute name → text of its value, of an ad with one `Name = value` a line."""
    matches = (_LINE.match(line) for line in ad.splitlines())
    return {match["name"].lower(): match["value"] for match in matches if match}


def number(text: str) -> float | None:
    """The value of a number or of a product of numbers; None for anything else."""
    text = text.strip("() ")
    if not _PRODUCT.match(text):
        return None
    return math.prod(float(factor) for factor in text.split("*"))
