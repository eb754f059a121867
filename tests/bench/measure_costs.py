"""Measure what `unit_costs.py` has and no row of the bench gives.

    python tests/bench/measure_costs.py [--runs 3] [tms] [broker] [pool]

Memory of a TMS at rest; what RabbitMQ needs for a connection and an event; what HTCondor needs for a worker. It prints
each run's figures (bytes, s), and at the end their medians, as JSON objects. `broker` and `pool` need what the pool for
tests needs: root, and Debian packages.
"""

import argparse
import asyncio
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import broker_costs
import pool_costs
import psutil
import trio
from processes import descendants

from ewms.testing.broker import open_rabbitmq
from ewms.testing.held import held
from ewms.testing.pool import open_pool
from ewms.testing.wms import open_standin

REST = 20.0
"""Seconds that a TMS gets to come to rest."""

Figures = dict[str, float]


def tms(directory: Path, runs: int) -> Iterator[Figures]:
    for number in range(runs):
        yield trio.run(_tms, directory / str(number))


async def _tms(directory: Path) -> Figures:
    jobs = directory / "jobs"
    jobs.mkdir(parents=True)
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
            used = psutil.Process(process.pid).memory_full_info().pss
            process.terminate()
            await process.wait()
    return {"tms_memory": used}


def broker(directory: Path, runs: int) -> Iterator[Figures]:
    """A new one for each run."""
    for number in range(runs):
        yield _broker(directory / str(number))


def _broker(directory: Path) -> Figures:
    directory.mkdir(parents=True)
    with held(partial(open_rabbitmq, directory, progress=_say)) as server:
        (beam,) = descendants("beam.smp")
        return asyncio.run(broker_costs.costs(server, beam))


def pool(directory: Path, runs: int) -> Iterator[Figures]:
    directory.mkdir()
    make = partial(open_pool, directory, progress=_say, rabbitmq=False)
    with held(partial(make, n_cpus=pool_costs.SLOTS, extra_config=pool_costs.CONFIG)) as opened:
        for _ in range(runs):
            yield pool_costs.costs(opened, directory)


PARTS: Final[Mapping[str, Callable[[Path, int], Iterator[Figures]]]] = {"tms": tms, "broker": broker, "pool": pool}


def _say(text: str) -> None:
    print(f"  … {text}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help="all of them by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ewms-costs-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        for part in options.parts or PARTS:
            runs = []
            for figures in PARTS[part](Path(made) / part, options.runs):
                print(json.dumps(figures), flush=True)
                runs.append(figures)
            print(json.dumps({name: statistics.median(run[name] for run in runs) for name in runs[0]}), flush=True)


if __name__ == "__main__":
    main()
