"""A pilot whose containers do nothing: what is left is the pilot's own cost.

    python noop_pilot.py            settings come from the environment, as those of `ewms pilot`

It takes the way of `ewms pilot`, with a platform of its own: a container that gives its infile as its outfile. Its last
line of standard output is a JSON object.
"""

import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

import ewms.cli
import ewms.pilot.cli  # noqa: F401  every pilot carries it
from ewms import logs
from ewms.pilot import service
from ewms.pilot.containers.base import Container, ContainerSpec, Mount, Platform, Usage
from ewms.pilot.containers.processes import open_launcher
from ewms.pilot.settings import PilotSettings, read

SETTLED_AFTER = 1000
"""Events after which the pilot's memory should not grow any more."""


class Noop:
    """The platform, and its container; see `Platform` and `Container`."""

    name = "noop"
    isolates = False
    usage = Usage(cpu_s=0.0, peak_memory=0)

    def __init__(self) -> None:
        self.count = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.cpu_at_first = 0.0
        self.settled_mb = 0.0

    async def prepare(self, image: str) -> str:
        return image

    def path_inside(self, mount: Mount) -> Path:
        return mount.source

    async def check(self, spec: ContainerSpec) -> None:
        return None

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        return self._start(spec)

    @asynccontextmanager
    async def _start(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        if not self.count:
            self.first_at, self.cpu_at_first = time.perf_counter(), cpu_s()
        self.count += 1
        self.last_at = time.perf_counter()
        if self.count == SETTLED_AFTER:
            self.settled_mb = resident_mb()
        os.link(*spec.args)
        yield self

    async def memory(self) -> int | None:
        return None

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return 0


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_mb(name: str = "VmRSS") -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1000


async def main(settings: PilotSettings, noop: Noop) -> int:
    @asynccontextmanager
    async def platforms(_settings: PilotSettings) -> AsyncIterator[Platform]:
        async with open_launcher():  # it is part of every pilot
            yield noop

    return await service.main(settings, platforms=platforms)


if __name__ == "__main__":
    settings = read(os.environ)
    logs.configure(settings.cl_log.upper(), settings.cl_log_third_party.upper())
    noop = Noop()
    status = trio.run(main, settings, noop)
    print(
        json.dumps(
            {
                "status": status,
                "events": noop.count,
                "cpu_s": cpu_s() - noop.cpu_at_first,
                "rate": (noop.count - 1) / (noop.last_at - noop.first_at),
                "settled_mb": noop.settled_mb,
                "peak_mb": resident_mb("VmHWM"),
                "end_mb": resident_mb(),
            }
        )
    )
    sys.exit(status)
