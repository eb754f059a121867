"""`ewms tms` with a child that, once a file is there, loops without a checkpoint: `spinning_tms.py FILE`."""

import sys
from pathlib import Path
from typing import NoReturn

import trio

from ewms.cli import main
from ewms.tms import service
from ewms.tms.context import Context

FLAG = Path(sys.argv[1])


async def spin(_ctx: Context) -> NoReturn:
    """In place of the reviews."""
    while not FLAG.exists():  # noqa: ASYNC110, ASYNC240  another process makes it
        await trio.sleep(0.05)
    while True:
        pass


if __name__ == "__main__":
    vars(service)["run_reviews"] = spin
    main(["tms"])
