"""The TMS from its image under a real systemd: installed, updated, rolled back, and stuck."""

import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from asking import DEADLINE_S
from instances import LINK, WATCHDOG_S, Instance, open_instance
from tms_images import IMAGES, SETTINGS, publish

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

UPDATE = "./update_tms_image_symlink.sh"
QUICK = ("--start", "30", "--watch", "2", "--wait", "4")
SPINNING = Path(__file__).parents[1] / "faults" / "spinning_tms.py"
PORT = 9317
PACE = f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=2\n"
"""Why it ended is told until it starts again."""
MORE = {**SETTINGS, "TMS_METRICS_PORT": str(PORT)}
ODD = "a$(touch /tmp/evil) `touch /tmp/evil` $HOME"
"""A value that means something to a shell."""

BAD_CHECK = 'if [ "$1" = check ]; then echo "FAILED   token"; exit 1; fi\n'
NEVER_READY = 'if [ "$1" = tms ]; then exec sleep 1000; fi\n'
ENDS = 'if [ "$1" = tms ]; then echo "cannot go on" >&2; exit 1; fi\n'
READY_AND_DUMB = """\
if [ "$1" = tms ]; then
    exec python3 -c 'import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
time.sleep(1000)'
fi
"""
SPINS = (
    'if [ "$1" = tms ] && [ ! -e /tmp/spun ]; then touch /tmp/spun; exec python3 /tmp/spinning_tms.py /tmp/spin; fi\n'
)


@pytest.fixture
async def instance(pool: "Pool", tms_image: str, work_dir: Path) -> AsyncIterator[Instance]:
    """It runs version v1, as it was rolled out."""
    async with open_instance(pool, work_dir) as made:
        await made.configure(PACE, **MORE, TMS_TEST_ODD=ODD)
        await publish(made.booted, tms_image, "v1")
        first = await update(made, 0, "v1")
        assert "is stopped, and stays so: systemctl start ewms-tms@dev.service" in first
        await made.booted.systemctl("start", made.unit)
        yield made


async def update(instance: Instance, status: int, *words: str) -> str:
    """Run the update script; it must end with `status`, and never say the secret. What it said."""
    done = await instance.run(UPDATE, *QUICK, *words)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == status, said
    assert instance.stand.wms.client_secret.reveal() not in said
    return said


async def test_it_runs_from_its_image(instance: Instance) -> None:
    workflow = await instance.submitted()
    tms = await tms_pid(instance)
    assert tms != await instance.main_pid(), "the main process is Apptainer"
    secret = instance.stand.wms.client_secret.reveal()
    assert secret not in await instance.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    environment = await instance.shell(f"tr '\\0' '\\n' < /proc/{tms}/environ")
    assert f"TMS_TEST_ODD={ODD}\n" in environment
    assert f"EWMS_CLIENT_SECRET={secret}\n" in environment
    assert (await instance.run("test", "-e", "/tmp/evil")).returncode == 1
    peek = await instance.booted.inside.run(["cat", f"{instance.directory}/envfile"], check=False)
    assert b"Permission denied" in peek.stderr, "systemd reads it: not even the TMS's own user may"
    await instance.booted.systemctl("stop", instance.unit)
    assert await instance.booted.property(instance.unit, "Result") == "success"
    await instance.says("clusters are left alone")
    await instance.booted.systemctl("start", instance.unit)
    await instance.ended(workflow)
    assert len(await instance.clusters(workflow)) == 1


async def test_a_change_of_the_envfile_restarts_it_and_a_reload_does_not(instance: Instance) -> None:
    await instance.write("/srv/ewms/sites", "")
    await instance.booted.systemctl("start", "ewms-tms@dev.path")
    pid = await instance.main_pid()
    await instance.configure(PACE, **MORE, TMS_EXCLUDED_SITES_FILE="/srv/ewms/sites", TMS_LOG_FORMAT="json")
    await instance.until_is_another_than(pid)
    pid = await instance.main_pid()
    await instance.write("/srv/ewms/sites", "GLIDEIN_Site = Black Hole\n")
    await instance.booted.systemctl("reload", instance.unit)
    await instance.says('"event": "excluded sites read again"')
    assert await instance.main_pid() == pid


async def test_one_that_is_stuck_is_killed_and_the_next_one_goes_on(instance: Instance, tms_image: str) -> None:
    await instance.write("/tmp/spinning_tms.py", SPINNING.read_text())
    await instance.point_at(await publish(instance.booted, tms_image, "spins", SPINS))
    await instance.booted.systemctl("restart", instance.unit)
    workflow = await instance.submitted()
    pid = await instance.main_pid()
    await instance.booted.inside.run(["touch", "/tmp/spin"])
    await instance.says("Watchdog timeout")
    await instance.until_is_another_than(pid)
    journal = await instance.booted.journal(instance.unit)
    assert "Fatal Python error: Aborted" in journal
    assert "in spin" in journal, "where it was"
    assert await instance.booted.property(instance.unit, "NRestarts") == "1"
    await instance.ended(workflow)
    assert len(await instance.clusters(workflow)) == 1


async def test_updates(instance: Instance, tms_image: str) -> None:
    """One after the other, as a bad week would bring them; the cluster outlives them all."""
    booted = instance.booted
    workflow = await instance.submitted()
    v1 = f"{IMAGES}:v1"

    said = await update(instance, 3, "v2")
    assert f"{v1[:-2]}v2 did not appear within 4 s" in said

    # It appears late; and who comes meanwhile is refused.
    late: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_updated_with, instance, late, "v2", "--wait", "60")
        await until_locked(instance)
        assert "another update of dev is under way" in await update(instance, 7, "v1")
        v2 = await publish(booted, tms_image, "v2", "echo this is v2 >&2\n")
    assert f"waiting for {v2}" in late[0]
    assert f"done: {v2} runs and is healthy" in late[0]
    assert await instance.release() == v2
    await instance.says("this is v2")
    pid = await instance.main_pid()

    await publish(booted, tms_image, "v3", BAD_CHECK)
    said = await update(instance, 4, "v3")
    assert "    FAILED   token\n" in said
    assert "nothing was changed" in said
    assert (await instance.release(), await instance.main_pid()) == (v2, pid)

    # One file is mounted through FUSE, which the unit takes away.
    await instance.write(f"{IMAGES}:file", "no image")
    assert "a drop-in with PrivateDevices=no" in await update(instance, 4, "file")

    for version, first, reason in (
        ("v4", NEVER_READY, "it is not ready within 5 s"),
        ("v5", ENDS, "it ended by itself (exit-code, exit status 1)"),
        ("v6", READY_AND_DUMB, f"nobody answers at http://127.0.0.1:{PORT}/healthz"),
    ):
        bad = await publish(booted, tms_image, version, first)
        said = await update(instance, 5, version, "--start", "5")
        assert f"ROLLED BACK to {v2}, which is healthy. {bad}: {reason}" in said
        assert await instance.release() == v2
        assert await instance.state() == "active"
    assert "cannot go on" in await booted.journal(instance.unit)

    # By hand.
    await update(instance, 0, "v1")
    assert await instance.release() == v1
    await instance.ended(workflow)
    assert len(await instance.clusters(workflow)) == 1


async def test_an_update_that_is_interrupted_is_taken_back(instance: Instance, tms_image: str) -> None:
    await publish(instance.booted, tms_image, "v2", NEVER_READY)
    command = instance.booted.inside.command([UPDATE, *QUICK, "v2"], user="root", cwd=instance.directory)
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said, was_interrupted = "", False
    with trio.fail_after(DEADLINE_S):
        async for piece in process.stdout:
            said += piece.decode()
            if "activating" in said and not was_interrupted:
                was_interrupted = True  # once: a shell that is ending is killed by another one
                process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert "the link points at" in said
    assert await instance.release() == f"{IMAGES}:v1"
    await instance.until_is("active")
    assert (await instance.run("ls", "-A")).stdout.decode().split() == sorted(
        [".update.lock", LINK, "envfile", "ewms", UPDATE[2:]]
    )


async def test_one_that_fails_again_and_again_is_left_down_until_it_is_updated(
    instance: Instance, tms_image: str
) -> None:
    await instance.configure("[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=0.1\n", **MORE)
    await instance.point_at(await publish(instance.booted, tms_image, "v2", ENDS))
    await instance.booted.systemctl("restart", "--no-block", instance.unit)
    await instance.until_is("failed")
    await instance.says("Start request repeated too quickly")
    said = await update(instance, 6, "v2")
    assert "There is no earlier version to go back to" in said
    await update(instance, 0, "v1")
    assert await instance.state() == "active"


async def tms_pid(instance: Instance) -> int:
    """The TMS's own process, in the image: it stands in its lock."""
    return int(await instance.shell(f"cat {instance.ground.job_dir}/.tms/lock"))


async def until_locked(instance: Instance) -> None:
    async def is_locked() -> bool:
        return (await instance.run("flock", "--nonblock", ".update.lock", "true")).returncode == 1

    await instance.until(is_locked, "locked")


async def _updated_with(instance: Instance, said: list[str], *words: str) -> None:
    said.append(await update(instance, 0, *words))
