"""Measure the memory of a TMS at rest, which `unit_costs.py` has and no row of the bench gives.

    python tests/bench/measure_costs.py

It prints a JSON object.
"""

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

import trio

from ewms.testing.wms import open_standin

REST = 20.0
"""Seconds that it gets to come to rest."""


async def main(directory: Path) -> None:
    jobs = directory / "jobs"
    jobs.mkdir()
    async with open_standin(locations={"here": "ap.example.org"}, needs_token=False) as standin:
        environment = {
            **os.environ,
            "EWMS_ADDRESS": standin.address,
            "TMS_NO_AUTH": "true",
            "TMS_SCHEDD_NAME": "ap.example.org",
            "JOB_EVENT_LOG_DIR": str(jobs),
            # As root, the default helper would be refused.
            "TMS_SCHEDD_HELPER": shlex.join([sys.executable, "-u", "-m", "ewms.tms.condor.helper"]),
        }
        with (directory / "tms.log").open("wb") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "ewms", "tms"], env=environment, stdout=log, stderr=log
            )
            await trio.sleep(REST)
            print(json.dumps({"tms_memory": proportional(process.pid)}))
            process.terminate()
            await process.wait()


def proportional(pid: int) -> int:
    """A process's memory in bytes; of what it shares, its part."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] == "Pss:")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ewms-costs-") as made:
        trio.run(main, Path(made))
