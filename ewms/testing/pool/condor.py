"""HTCondor inside a namespace: one machine that is central manager, access point and execution point."""

import re
from pathlib import Path
from typing import Final

import trio

from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.namespace import CommandFailed, Namespace
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.steps import PoolUnavailable, Progress

_CONFIG_DIR: Final = "/etc/condor/config.d"
_DIRECTORIES: Final = ("/run/condor", "/run/lock/condor", "/var/spool/condor", "/var/lib/condor/execute")
_CAPABILITIES: Final = ("HasSingularity", "HasContainer", "HasUserNamespaces")
"""What the machine's ad must say before container-universe jobs with nested containers can run."""

_START_DEADLINE_S: Final = 90
_POLL_S: Final = 0.3
_TELL_EVERY_S: Final = 2


async def start_condor(inside: Namespace, logs: Path, *, n_cpus: int, extra_config: str, progress: Progress) -> None:
    """Start HTCondor and wait until it can run container jobs; its own logs go to `logs/condor`.

    Raises:
        PoolUnavailable: it did not come up, or sees no container runtime.
    """
    (port,) = free_ports(1)
    condor_logs = logs / "condor"
    await _make_directories(inside, [*_DIRECTORIES, str(condor_logs)])
    await _configure(inside, "50-pool", (containers_dir() / "pool" / "condor.conf").read_text())
    run = f"SHARED_PORT_PORT = {port}\nNUM_CPUS = {n_cpus}\nLOG = {condor_logs}\n"
    await _configure(inside, "60-run", run + extra_config + "\n")
    with (logs / "condor_master.log").open("ab") as log:
        master = await inside.spawn(["condor_master", "-f"], user="root", log=log)
    await _wait_until_healthy(inside, master, condor_logs, progress)


async def _make_directories(inside: Namespace, paths: list[str]) -> None:
    await inside.run(["install", "--directory", "--owner=condor", "--group=condor", *paths], user="root")


async def _configure(inside: Namespace, name: str, text: str) -> None:
    await inside.run(["tee", f"{_CONFIG_DIR}/{name}"], user="root", stdin=text.encode())


async def _wait_until_healthy(inside: Namespace, master: trio.Process, logs: Path, progress: Progress) -> None:
    started = told_at = trio.current_time()
    missing = "no answer yet"
    progress("starting HTCondor")
    with trio.move_on_after(_START_DEADLINE_S):
        while master.poll() is None:
            missing = await _what_is_missing(inside)
            if not missing:
                progress(f"HTCondor is ready ({trio.current_time() - started:.1f} s)")
                return
            if trio.current_time() - told_at >= _TELL_EVERY_S:
                told_at = trio.current_time()
                progress(f"starting HTCondor ({told_at - started:.0f} s): {missing}")
            await trio.sleep(_POLL_S)
    raise PoolUnavailable(f"HTCondor does not come up: {missing} (its logs: {logs})")


async def _what_is_missing(inside: Namespace) -> str:
    """What keeps the pool from being healthy, in words; empty if nothing does."""
    try:
        status = await inside.run(["condor_status", "-limit", "1", "-af", *_CAPABILITIES])
        await inside.run(["condor_q", "-totals"])
    except CommandFailed as error:
        return str(error).splitlines()[0]
    values = dict(zip(_CAPABILITIES, status.stdout.decode().split(), strict=False))
    if not values:
        return "the machine is not in the collector yet"
    return ", ".join(f"{name} is {value}" for name, value in values.items() if value != "true")


async def condor_version(inside: Namespace) -> str:
    """HTCondor's version, asked from its own program."""
    said = await inside.run(["condor_version"])
    return _version(said.stdout)


async def apptainer_version(inside: Namespace) -> str:
    """Apptainer's version, asked from its own program."""
    said = await inside.run(["apptainer", "--version"])
    return _version(said.stdout)


def _version(said: bytes) -> str:
    found = re.search(r"\d+\.\d+\.\d+", said.decode())
    return found.group() if found else "unknown"
