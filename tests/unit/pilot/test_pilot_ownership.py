"""Which containers a pilot may remove: those of pilots that are surely dead."""

import os
import subprocess
import sys

import attrs
import pytest

from ewms.pilot.containers.ownership import Owner, is_leftover, owner_of, start_of

ME = Owner(boot="b", pid_namespace="pid:[1]", uid=7, pid=10, started=100)
ALIVE = {10: 100, 11: 111}

DEAD = attrs.evolve(ME, pid=99)
OTHER = attrs.evolve(ME, pid=11, started=111)


@pytest.mark.parametrize(
    ("owner", "running", "leftover"),
    [
        (ME, True, False),
        (OTHER, True, False),
        (DEAD, True, True),
        (DEAD, False, True),
        # The process id is in use again.
        (attrs.evolve(OTHER, started=5), True, True),
        # Of others we cannot know.
        (attrs.evolve(DEAD, uid=8), True, False),
        (attrs.evolve(DEAD, uid=8), False, False),
        (attrs.evolve(DEAD, pid_namespace="pid:[2]"), True, False),
        (attrs.evolve(DEAD, pid_namespace="pid:[2]"), False, True),
        (attrs.evolve(DEAD, boot="before"), True, False),
        (attrs.evolve(DEAD, boot="before"), False, True),
    ],
)
def test_what_is_a_leftover(owner: Owner, *, running: bool, leftover: bool) -> None:
    assert is_leftover(str(owner), running=running, me=ME, start_of=ALIVE.get) is leftover


@pytest.mark.parametrize("label", ["", "x", "a/b/c/d/e", "b/n/1/2/3/4"])
def test_a_label_of_somebody_else_is_left_alone(label: str) -> None:
    assert owner_of(label) is None
    assert not is_leftover(label, running=False, me=ME)


def test_this_process_is_alive_and_its_label_reads_back() -> None:
    me = Owner.this_process()
    assert owner_of(str(me)) == me
    assert me.pid == os.getpid()
    assert start_of(me.pid) == me.started


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_of(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_of(child.pid) is None
    child.communicate()
    assert start_of(child.pid) is None
