"""A TMS without an image: an instance under a real systemd beside a real HTCondor. (test_rollout has it from one.)"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from instances import UNITS, Instance, open_instance

from ewms.testing.hanging import hanging_file
from ewms.testing.pool.booted import CGROUP_PREFIX, boot_systemd
from ewms.testing.pool.cgroups import cgroups_here

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

GUIDE, MOVING = ((Path(__file__).parents[2] / "docs" / name).read_text() for name in ("operators.md", "moving.md"))

# What a release is without an image, in short: a directory with bin/ewms. (A real one is a virtual environment.)
EWMS = '#!/bin/sh\nexec /usr/bin/python3 -m ewms "$@"\n'


@pytest.fixture
async def instance(pool: "Pool", work_dir: Path) -> AsyncIterator[Instance]:
    async with open_instance(pool, work_dir) as made:
        await made.write(f"{made.directory}/releases/1/bin/ewms", EWMS, "0755")
        await made.point_at("releases/1")
        yield made


async def test_it_is_active_once_it_is_ready_and_stops_without_removing_anything(instance: Instance) -> None:
    booted, unit = instance.booted, instance.unit
    async with _another_tms(instance, instance.ground.job_dir):
        await booted.systemctl("start", "--no-block", unit)
        await instance.says("waiting: another TMS")
        assert await instance.state() == "activating"
    await instance.until_is("active")
    workflow = await instance.submitted()
    await instance.until(lambda: _status_has(instance, 'Status: "taskforces: 1 open; jobs: 1 '), "in the status line")
    await booted.systemctl("stop", unit)
    assert await instance.state() == "inactive"
    assert await booted.property(unit, "Result") == "success"
    await instance.says("clusters are left alone")
    assert len((await booted.inside.run(["condor_q", "-af", "ClusterId"])).stdout.split()) == 1
    await booted.systemctl("start", unit)
    await instance.ended(workflow)


async def test_a_part_that_hangs_is_named_and_the_tms_is_restarted(instance: Instance) -> None:
    booted, unit = instance.booted, instance.unit
    await instance.configure(TMS_STUCK_TIME="1", TMS_SCHEDD_TIMEOUT="9")
    await booted.systemctl("start", unit)
    workflow = await instance.submitted()
    pid = await instance.main_pid()
    hanging = instance.ground.job_dir / "2020-01-01.tms.jel"
    with hanging_file(hanging):
        await instance.says("a part of the TMS is stuck, the watchdog is not fed")
        await instance.says(f"child='watch {hanging.name}'")
        await instance.says("Watchdog timeout")

    async def is_another() -> bool:
        return await instance.main_pid() not in (0, pid) and await instance.state() == "active"

    await instance.until(is_another, "restarted")
    await instance.ended(workflow)
    assert len(await instance.clusters(workflow)) == 1


async def test_a_change_of_the_envfile_restarts_it(instance: Instance) -> None:
    booted, unit = instance.booted, instance.unit
    await booted.systemctl("start", unit, "ewms-tms@dev.path")
    workflow = await instance.submitted()
    pid = await instance.main_pid()
    await instance.configure(TMS_LOG_FORMAT="json")
    await instance.until_is_another_than(pid)
    await instance.says('"event":')
    pid = await instance.main_pid()
    await instance.write(
        f"{instance.directory}/releases/2/bin/ewms", EWMS.replace("exec", "echo release 2\nexec"), "0755"
    )
    await instance.point_at("releases/2")
    await booted.inside.run(["touch", f"{instance.directory}/envfile"], user="root")
    await instance.until_is_another_than(pid)
    await instance.says("release 2")
    await booted.systemctl("stop", unit)
    for _ in range(6):  # one more than systemd lets a service start in ten seconds
        ran = await _restarter_ran(instance)
        await booted.inside.run(["touch", f"{instance.directory}/envfile"], user="root")
        await instance.until(partial(_restarter_ran_again, instance, ran), "told of the change")
        assert await instance.state() == "inactive"  # and is left alone
    await booted.systemctl("start", unit)
    for _ in range(11):  # one more than the unit lets the TMS start in ten minutes
        pid = await instance.main_pid()
        await booted.inside.run(["touch", f"{instance.directory}/envfile"], user="root")
        await instance.until_is_another_than(pid)
    await instance.ended(workflow)
    assert len(await instance.clusters(workflow)) == 1


async def test_a_change_while_a_restart_is_under_way_is_not_lost(instance: Instance) -> None:
    envfile, elsewhere = f"{instance.directory}/envfile", instance.ground.job_dir / "elsewhere"
    good = await instance.shell(f"cat {envfile}")
    await instance.booted.systemctl("start", instance.unit, "ewms-tms@dev.path")
    pid = await instance.main_pid()
    async with _another_tms(instance, elsewhere):
        # No `configure`: when systemd reads its units again, it looks at the file again, too.
        await instance.write(envfile, good + f'JOB_EVENT_LOG_DIR="{elsewhere}"\n', "0600")
        await instance.says("waiting: another TMS")
        assert await instance.state() == "activating"
        await instance.write(envfile, good, "0600")
        await instance.until_is_another_than(pid)


async def test_one_that_cannot_run_is_left_down(instance: Instance) -> None:
    await instance.configure(EWMS_ADDRESS="nonsense")
    await instance.booted.systemctl("start", instance.unit, check=False)
    assert await instance.state() == "failed"
    assert await instance.booted.property(instance.unit, "NRestarts") == "0"  # no restart mends a setting
    await instance.says("EWMS_ADDRESS: ")
    await instance.configure(TMS_BASE_REQUIREMENTS="(((")
    await instance.booted.systemctl("start", instance.unit, check=False)
    assert await instance.state() == "failed"
    assert await instance.booted.property(instance.unit, "NRestarts") == "0"
    await instance.says("TMS_BASE_REQUIREMENTS: HTCondor cannot parse it")
    limit = "[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=0.1\n"
    await instance.configure(limit, TMS_EXCLUDED_SITES_FILE="/not/mounted/sites")
    await instance.booted.systemctl("reset-failed", instance.unit)
    await instance.booted.systemctl("start", "--no-block", instance.unit)
    await instance.until_is("failed")
    await instance.says("Start request repeated too quickly")
    await instance.says("TMS_EXCLUDED_SITES_FILE: /not/mounted/sites: No such file")


async def test_its_log_goes_to_a_file_where_a_drop_in_says_so(instance: Instance) -> None:
    section = GUIDE.partition("### Its log in a file\n")[2]
    found = re.search(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    await instance.configure(found[1].replace("tms-prod", "tms-dev"), EWMS_ADDRESS="nonsense")
    await instance.booted.systemctl("start", instance.unit, check=False)
    said = await instance.shell("stat -c %U /var/log/ewms-tms-dev.log && cat /var/log/ewms-tms-dev.log")
    assert said.startswith("root\n")
    assert "\nEWMS_ADDRESS: " in said, "what it says on stderr"
    assert "EWMS_ADDRESS: " not in await instance.booted.journal(instance.unit)


async def test_the_earlier_units_are_stopped_as_the_page_on_moving_says(instance: Instance) -> None:
    found = re.search(r"^ *(systemctl disable --now (\S+) (\S+))$", MOVING, re.MULTILINE)
    assert found is not None
    line, *units = found.groups()
    wanted = "[Install]\nWantedBy=default.target\n"
    await instance.write(f"{UNITS}/{units[0]}", f"[Path]\nPathChanged=/tmp/envfile\nUnit={units[1]}\n{wanted}")
    await instance.write(f"{UNITS}/{units[1]}", f"[Service]\nExecStart=sleep 1000\n{wanted}")
    await instance.booted.systemctl("enable", "--now", *units)
    assert (await instance.run("bash", "-c", line)).returncode == 0
    for unit in units:
        assert await instance.booted.property(unit, "ActiveState") == "inactive"
        assert await instance.booted.property(unit, "UnitFileState") == "disabled"
        await instance.run("rm", f"{UNITS}/{unit}", check=True)


async def test_nothing_of_systemd_is_left(pool: "Pool") -> None:
    async with boot_systemd(pool.inside, pool.logs / "boot.log") as booted:
        namespace = _namespace(booted.inside.init_pid)
        assert _processes_in(namespace)
        assert _own_cgroups()
    assert not _processes_in(namespace)
    assert not _own_cgroups()


@asynccontextmanager
async def _another_tms(instance: Instance, job_dir: Path) -> AsyncIterator[None]:
    """What a TMS holds there, as long as this runs."""
    inside, lock = instance.booted.inside, job_dir / ".tms" / "lock"
    await inside.run(["mkdir", "-p", str(lock.parent)])
    async with trio.open_nursery() as nursery:
        holding = inside.command(["flock", "--no-fork", str(lock), "sleep", "1000"])
        nursery.start_soon(trio.run_process, holding)  # noqa: ASYNC113  it is waited for below
        await instance.until(lambda: _is_locked(instance, lock), "locked")
        yield
        nursery.cancel_scope.cancel()


async def _restarter_ran(instance: Instance) -> int:
    """How often."""
    return (await instance.booted.journal("ewms-tms-restart@dev.service")).count("Finished")


async def _restarter_ran_again(instance: Instance, before: int) -> bool:
    return await _restarter_ran(instance) > before


async def _status_has(instance: Instance, text: str) -> bool:
    return text in await instance.booted.systemctl("status", instance.unit)


async def _is_locked(instance: Instance, lock: Path) -> bool:
    done = await instance.booted.inside.run(["flock", "--nonblock", str(lock), "true"], check=False)
    return done.returncode != 0


def _namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/pid").readlink()


def _processes_in(namespace: Path) -> list[Path]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "ns" / "pid").readlink() == namespace:
                found.append(directory)
        except OSError:
            continue
    return found


def _own_cgroups() -> list[Path]:
    return [found for mount in cgroups_here() for found in mount.glob(f"{CGROUP_PREFIX}{os.getpid()}")]
