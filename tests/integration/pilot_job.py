"""One container-universe job in the pilot's image, as the tests want it, from its submission to its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

SUBMIT: Final = """\
universe = container
container_image = {image}
transfer_container = false
executable = {directory}/job.sh
initialdir = {directory}
output = out
error = err
log = {directory}/log
should_transfer_files = yes
request_memory = 200
request_disk = 10M
{more}
queue
"""


def make_directory(pool: "Pool", name: str) -> Path:
    """A directory of the ordinary user's, for one job."""
    directory = pool.job_dir / name
    trio.run(lambda: pool.run(["mkdir", str(directory)]))
    return directory


def run_job(pool: "Pool", directory: Path, command: str, more: str) -> str:
    """What a shell's `command` says in a job; `more` lines go into its submit description."""
    (directory / "job.sh").write_text(f"#!/bin/sh\nexec {command}\n")
    (directory / "job.sh").chmod(0o755)
    image = f"{pool.pilot_image_base}:{pool.pilot_tag}"
    text = SUBMIT.format(image=image, directory=directory, more=more)

    async def submit_and_wait() -> None:
        await pool.run(["condor_submit", "-"], stdin=text.encode())
        await pool.run(["condor_wait", "-wait", "120", f"{directory}/log"])

    trio.run(submit_and_wait)
    return (directory / "out").read_text() or (directory / "err").read_text()
