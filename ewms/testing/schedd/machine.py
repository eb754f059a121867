"""The machine that the embedded schedd's workers run on, as an ad, and which jobs match it (pure)."""

import os
import platform
from collections.abc import Mapping
from typing import Any, Final

import classad2

MAX_VACATE_TIME: Final = 600
"""HTCondor's default of MachineMaxVacateTime, in s."""


_FITS: Final = classad2.ExprTree(
    "RequestCpus <= TARGET.Cpus && RequestMemory <= TARGET.Memory && RequestDisk <= TARGET.Disk"
)


def machine_ad(name: str, slots: int, extra: Mapping[str, str]) -> Any:
    """One ad for all slots; `extra` has more attributes, as texts of expressions."""
    ad = classad2.ClassAd(
        {
            "MyType": "Machine",
            "Machine": name,
            "Name": f"slot1@{name}",
            "Arch": platform.machine().upper(),
            "OpSys": "LINUX",
            "FileSystemDomain": name,
            "Cpus": max(os.cpu_count() or 1, slots),
            "TotalCpus": max(os.cpu_count() or 1, slots),
            "Memory": 1 << 20,
            "Disk": 1 << 40,
            "GPUs": 0,
            # What a container universe job wants of a machine; nothing here is really isolated.
            "HasContainer": True,
            "HasFileTransfer": True,
            "HasSingularity": True,
            "HasUserNamespaces": True,
            "RetirementTimeRemaining": 0,
            "TimeToLive": 2147483647,
        }
    )
    ad["MachineMaxVacateTime"] = classad2.ExprTree("10 * 60")
    for attribute, text in extra.items():
        ad[attribute] = classad2.ExprTree(text)
    return ad


def matches(job: Any, machine: Any) -> bool:
    """Whether the job's requirements hold and it fits."""
    # As at matchmaking, a name that the job does not define is the machine's.
    scope = classad2.ClassAd()
    for ad in (machine, job):
        for name in ad:
            scope[name] = ad.lookup(name)
    return all(_true(tree.eval(scope, machine)) for tree in (job.lookup("Requirements"), _FITS))


def evaluates_true(tree: Any, scope: Any) -> bool:
    """Is the expression true in the ad `scope`? UNDEFINED and ERROR are not."""
    return _true(tree.eval(scope))


def _true(value: Any) -> bool:
    return type(value) in (bool, int, float) and bool(value)
