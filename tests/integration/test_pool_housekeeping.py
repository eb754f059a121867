"""Files of the job directory on a real pool: they go when no job needs them, and never before."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from asking import DEADLINE_S, request, stopped, until

from ewms.contract import ENVFILE_NAME
from ewms.testing.grounds import pool_ground
from ewms.testing.stand import Stand, open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

# Everything is old after a second.
IMPATIENT = {
    "TMS_FILE_MANAGER_INTERVAL": "0.5",
    "JOB_EVENT_LOG_MODIFICATION_EXPIRY_SHORT": "1",
    "JOB_EVENT_LOG_MODIFICATION_EXPIRY_LONG": "1",
    "TASKFORCE_DIRS_EXPIRY": "1",
}
ARCHIVES_TOO = {"JOB_EVENT_LOG_ARCHIVE_DELETE_EXPIRY": "1", "TASKFORCE_DIRS_TAR_EXPIRY": "1"}
# A job of another day, as the schedd may know one: it waits, and needs its log and what stands in its sandbox.
WAITING = """\
executable = /bin/true
transfer_input_files = {directory}/{envfile}
should_transfer_files = yes
initialdir = {directory}
log = {log}
hold = true
queue
"""


async def test_what_a_job_needs_stays_and_the_rest_goes(pool: "Pool", work_dir: Path) -> None:
    ground = pool_ground(pool, pool.job_dir.parent)
    old_log, waiting = ground.job_dir / "2026-01-01.tms.jel", ground.job_dir / "ewms-taskforce-TF-WAITING"
    async with open_stand(ground, work_dir) as stand, stand.tms(**IMPATIENT):
        living = await stand.request(request(ground, "sleep 1000", workers=1))
        await ground.queues.put(living.queue_in, ["one"])
        over = await stand.request(request(ground, "sleep 1000", workers=1))
        await pool.run(["mkdir", str(waiting)])
        await pool.run(["tee", str(waiting / ENVFILE_NAME)], stdin=b"export X=1\n")
        text = WAITING.format(directory=waiting, envfile=ENVFILE_NAME, log=old_log)
        await pool.run(["condor_submit", "-terse", "-"], stdin=text.encode())
        await until(stand, living, lambda t: t["compound_statuses"] == {"RUNNING": {"Tasking": 1}}, "tasking")
        await until(stand, over, lambda t: t["phase"] == "condor-submit", "submitted")
        await stopped(stand, over)

        envfile = ground.job_dir / f"ewms-taskforce-{living.taskforce_uuid}" / ENVFILE_NAME
        await gone(stand, ground.job_dir / f"ewms-taskforce-{over.taskforce_uuid}")
        # Some rounds later, and long after everything was old:
        await trio.sleep(5)
        for needed in (old_log, waiting / ENVFILE_NAME, envfile):
            assert await trio.Path(needed).exists(), needed

        await pool.run(["condor_rm", "-constraint", f'UserLog == "{old_log}"'])
        await gone(stand, waiting)
        await gone(stand, old_log)
        archived = gzip.decompress(await trio.Path(f"{old_log}.gz").read_bytes())
        assert archived.startswith(b"000 (")
        assert b"\n009 (" in archived
        assert await trio.Path(f"{waiting}.tar.gz").exists()
        assert await trio.Path(envfile).exists()
        await stopped(stand, living)
        await gone(stand, envfile.parent)
    archives = [Path(f"{each}{suffix}") for each, suffix in ((old_log, ".gz"), (waiting, ".tar.gz"))]
    async with open_stand(ground, work_dir) as stand, stand.tms(**IMPATIENT, **ARCHIVES_TOO):
        for archive in archives:
            await gone(stand, archive)


async def gone(stand: Stand, path: Path) -> None:
    """Wait until housekeeping took it away."""
    with trio.move_on_after(DEADLINE_S):
        while True:
            if not await trio.Path(path).exists():
                return
            await trio.sleep(0.2)
    pytest.fail(f"{path} is still there; the TMS's log ends:\n{(stand.work_dir / 'tms.log').read_text()[-3000:]}")
