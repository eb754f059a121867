"""Where the files of a machine in a root file system are: its own directory, and the cache of all of them."""

from pathlib import Path

import platformdirs


def opened_to_all(work_dir: Path) -> Path:
    """Make `work_dir` a machine's own, where all users inside may walk and read; its directory for logs."""
    logs = work_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    work_dir.chmod(0o755)
    return logs


def default_cache_dir() -> Path:
    """The user's own."""
    return platformdirs.user_cache_path("ewms-htcondor")
