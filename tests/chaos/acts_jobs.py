"""Faults of workers, of the TMS's processes, and of HTCondor's."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import trio

from ewms.testing import outside
from tests.chaos.kinds import Act
from tests.chaos.schedule import Timed
from tests.chaos.system import NotDone, System

_RELEASED_WITHIN_S: Final = 60.0
_NOTED_S: Final = 30.0
"""A schedd that goes before it has noted how runs ended takes them for living ones, and waits for their execution point
until the jobs' leases are over (40 min). Nobody else can mend that."""

# --- pilots ---


def signal_pilot(number: int) -> Act:
    """Send it to one pilot of a base job; what was stopped is continued."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        pilots = system.pilots(system.victims)
        if not pilots:
            raise NotDone("no pilot")
        job, pilot = pilots[fault.draw % len(pilots)]
        if not outside.send(pilot.pid, number):
            raise NotDone("the pilot ended by itself")
        job.interruptions += 1
        with _stopped_for_a_time([pilot.pid], number):
            yield

    return act


@asynccontextmanager
async def kill_launcher(system: System, fault: Timed) -> AsyncIterator[None]:
    """kill -9 of the process that starts a pilot's tasks."""
    jobs = {each.pid: job for job, each in system.pilots(system.victims)}
    launchers = [each for each in outside.launchers() if each.parent in jobs]
    if not launchers:
        raise NotDone("no launcher")
    launcher = launchers[fault.draw % len(launchers)]
    if not outside.send(launcher.pid, signal.SIGKILL):
        raise NotDone("the launcher ended by itself")
    jobs[launcher.parent].interruptions += 1
    yield


@asynccontextmanager
async def hold(system: System, fault: Timed) -> AsyncIterator[None]:
    """condor_hold of one worker, and its release."""
    job, constraint = await system.running_worker(fault.draw)
    await system.act("hold", constraint)
    job.interruptions += 1
    yield
    # While its pilot still ends, a schedd may not release it; nobody else would ever do it.
    with trio.move_on_after(_RELEASED_WITHIN_S):
        while await system.is_held(constraint):
            with suppress(NotDone):
                await system.act("release", constraint)
            await trio.sleep(1)


@asynccontextmanager
async def vacate(system: System, fault: Timed) -> AsyncIterator[None]:
    """condor_vacate_job of one worker."""
    job, constraint = await system.running_worker(fault.draw)
    await system.act("vacate", constraint)
    job.interruptions += 1
    yield


@asynccontextmanager
async def remove(system: System, fault: Timed) -> AsyncIterator[None]:
    """condor_rm of one worker; two of each job are spared, who have to do the work."""
    job, constraint = await system.running_worker(fault.draw)
    if job.n_workers - job.gone <= 2:
        raise NotDone("no worker to spare")
    await system.act("remove", constraint)
    job.interruptions += 1
    job.gone += 1
    yield


# --- the TMS ---


def signal_tms(number: int, *, tms: bool, helpers: bool) -> Act:
    """Send it to the TMS, to its helpers, or to both; what was stopped is continued."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        pids = system.tms.pids
        chosen = pids[0 if tms else 1 : None if helpers else 1]
        if not chosen:
            raise NotDone("no TMS" if tms else "no helper")
        system.tms.signal(number, chosen)
        with _stopped_for_a_time(chosen, number):
            yield

    return act


@asynccontextmanager
async def step_clock(system: System, fault: Timed) -> AsyncIterator[None]:
    """The TMS's wall clock is wrong by minutes, hours or a day, either way; then it is right again."""
    steps = (60, 3600, 86400, -60, -3600, -86400)
    system.clock_file.write_text(str(steps[fault.draw % len(steps)]))
    try:
        yield
    finally:
        system.clock_file.write_text("0")


# --- HTCondor ---


def restart_daemon(name: str) -> Act:
    """`condor_restart -NAME`, as an operator does it."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        await _until_ends_are_noted(system, name)
        with system.interrupting():
            if name == "startd":
                system.newest_startd = trio.current_time()
            await system.place.as_root(["condor_restart", f"-{name}"])
            yield

    return act


def signal_daemons(program: str, number: int, *, one: bool = False) -> Act:
    """Send it to all processes of a program, or to one; what was stopped is continued."""

    @asynccontextmanager
    async def act(system: System, fault: Timed) -> AsyncIterator[None]:
        await _until_ends_are_noted(system, program)
        name = program.encode()
        ours = outside.descendants_of_us()
        found = [each.pid for each in outside.processes() if each.pid in ours and name in each.command_line[:200]]
        chosen = found[fault.draw % len(found) :][:1] if one and found else found
        if not chosen:
            raise NotDone("no such daemon")
        with system.interrupting():
            _send(chosen, number)
            with _stopped_for_a_time(chosen, number):
                yield

    return act


async def _until_ends_are_noted(system: System, program: str) -> None:
    if program.endswith("schedd"):
        await trio.sleep_until(system.newest_startd + _NOTED_S)


@contextmanager
def _stopped_for_a_time(pids: list[int], number: int) -> Iterator[None]:
    """What got SIGSTOP goes on in the end; other signals are sent and that is all."""
    try:
        yield
    finally:
        if number == signal.SIGSTOP:
            _send(pids, signal.SIGCONT)


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        outside.send(pid, number)
