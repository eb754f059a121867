"""Can there be a pool on this machine? Every condition, the plainest first, each with its cure."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from ewms.testing.pool.steps import PoolUnavailable

_TOOLS: Final = ("unshare", "mount", "pivot_root", "chroot")
_TRY_TO_MOUNT: Final = ["unshare", "--mount", "--pid", "--uts", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
# Switches by which distributions turn off what unprivileged Apptainer needs, and the value that does it.
_USER_NAMESPACE_SWITCHES: Final = {
    "/proc/sys/user/max_user_namespaces": "0",
    "/proc/sys/kernel/unprivileged_userns_clone": "0",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
}


async def check_surroundings() -> None:
    """Raise PoolUnavailable with the first condition for a real pool that is not met here."""
    for problem in (system, user, tools, user_namespaces):
        if text := problem():
            raise PoolUnavailable(text)
    # Root in a container may still not mount anything.
    tried = await trio.run_process(_TRY_TO_MOUNT, check=False, capture_stderr=True)
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise PoolUnavailable(
            f"it needs to make namespaces and mounts ({said}); a container must be privileged for that"
        )


def system() -> str:
    """It must be Linux. A sentence if not."""
    return "" if sys.platform == "linux" else f"it needs Linux, and this is {sys.platform}"


def user() -> str:
    """We must be root. A sentence if not."""
    return "" if os.geteuid() == 0 else "it needs root (to enter a root file system); run this as root"


def tools(which: Callable[[str], str | None] = shutil.which) -> str:
    """The programs that make namespaces must be there. A sentence if not."""
    missing = [tool for tool in _TOOLS if not which(tool)]
    return f"it needs {', '.join(missing)}; install the package util-linux" if missing else ""


def user_namespaces(switches: dict[str, str] | None = None) -> str:
    """No switch may turn user namespaces off. A sentence if not."""
    for path, off in (_USER_NAMESPACE_SWITCHES if switches is None else switches).items():
        switch = Path(path)
        if switch.exists() and switch.read_text().strip() == off:
            return f"Apptainer needs user namespaces, and {path} is {off}: change it with sysctl"
    return ""
