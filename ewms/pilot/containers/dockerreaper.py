"""The reaper program: when a pilot was killed with -9, it removes that pilot's Docker containers at once.

    python -I -S dockerreaper.py DOCKER LABEL PILOT_PID PILOT_START

It runs beside the pilot (standard library only, one for each pilot) under the launcher, which sends SIGTERM when the
pilot ends, however it ends: killing the docker command alone leaves its container alive. When the launcher was killed
too, the next pilot's self-check finds what is left.
"""

import signal
import subprocess
import sys
import time

TIME_S = 15.0
"""For the removal; the launcher gives no more than 20 s."""
LATE_S = 2.0
"""A `docker run` that is dying may still have a container made; so long is looked again."""
_CALL_LIMIT_S = 5.0
_POLL_S = 0.2


def main(docker: str, label: str, pid: str, started: str) -> None:
    """Wait for SIGTERM; then remove the containers with `label`. A pilot that lives by then left none."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.sigwait({signal.SIGTERM})
    begin = time.monotonic()
    while True:
        found = _call(docker, "ps", "--all", "--quiet", "--filter", f"label={label}")
        if found:
            _call(docker, "rm", "--force", "--volumes", *found)
        age = time.monotonic() - begin
        # Not before the first look: a pilot that is being killed seems to live for a moment after its files are closed.
        if age > TIME_S or (found == [] and (age > LATE_S or _is_alive(pid, started))):
            return
        time.sleep(_POLL_S)


def _is_alive(pid: str, started: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  no pathlib here
            state, *fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return state not in b"ZX" and fields[18] == started.encode()


def _call(*argv: str) -> "list[str] | None":
    """The words that a command printed; None if it did not answer, or failed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CALL_LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").split() if done.returncode == 0 else None


if __name__ == "__main__":
    main(*sys.argv[1:])
