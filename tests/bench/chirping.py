"""A job that chirps: `python chirping.py COUNT` writes so many texts into its job event log, then stays.

As a pilot does it, but one after another: between two of them its shadow has just gone to sleep again.
"""

import os
import sys
from pathlib import Path

import trio

from ewms.contract import ChirpAttribute
from ewms.pilot.chirp import ChirpClient

PAUSE = 0.005


async def main(count: int) -> None:
    client = ChirpClient(Path(os.environ["_CONDOR_CHIRP_CONFIG"]), to_log=True)
    for number in range(count):
        await client.set(ChirpAttribute.TASKS_TOTAL, number)
        await trio.sleep(PAUSE)
    await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
