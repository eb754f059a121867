"""A process of its own that opens a pool, says what is in it, and ends as it is told to; for test_pool_lifecycle."""

import json
import sys
from pathlib import Path

import trio

from ewms.testing.pool import open_pool

JOB = """\
universe = vanilla
executable = /bin/sleep
transfer_executable = false
arguments = 600
request_memory = 10
request_disk = 1M
queue 2
"""


async def main(work_dir: Path, wheel: Path | None, *, fails: bool) -> None:
    async with open_pool(work_dir, progress=lambda _: None, wheel=wheel) as pool:
        await pool.run(["condor_submit", "-"], stdin=JOB.encode(), cwd=str(pool.job_dir))
        with trio.fail_after(60):
            while (await pool.run(["condor_q", "-af", "JobStatus"])).stdout.split() != [b"2", b"2"]:  # noqa: ASYNC110
                await trio.sleep(0.2)
        print(json.dumps({"init_pid": pool.inside.init_pid, "address": pool.broker_address}), flush=True)
        if fails:
            raise ArithmeticError("as told")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, fails=sys.argv[3] == "fails"))
