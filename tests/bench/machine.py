"""What a bench ran on: a figure means nothing without it."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("htcondor", "trio", "httpx", "aiormq", "oms-mqclient")
_GIB = 1 << 30


def facts() -> dict[str, str]:
    """Processor, memory, kernel, and the versions of what takes part."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory / _GIB:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ewms-htcondor": _commit() or version("ewms-htcondor"),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
