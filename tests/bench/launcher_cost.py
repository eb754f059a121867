"""How long a container takes from its start to its end: through the pilot's launcher, and bubblewrap by itself.

    python launcher_cost.py COUNT            settings come from the environment, as those of `ewms pilot`

The container is one of the task image, and does nothing. Its last line of standard output is a JSON object.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ewms.pilot.containers import launcher as program
from ewms.pilot.containers.base import ContainerSpec
from ewms.pilot.containers.bwrap import BwrapPlatform, open_bwrap
from ewms.pilot.containers.processes import Command, Launcher, Process, open_launcher
from ewms.pilot.settings import PilotSettings, read

SLOTS = 4


@attrs.define
class Noting(Launcher):
    """A launcher that keeps the last command."""

    launcher: Launcher
    command: Command | None = None

    @asynccontextmanager
    async def run(self, command: Command) -> AsyncIterator[Process]:
        self.command = command
        async with self.launcher.run(command) as process:
            yield process


@attrs.frozen
class Place:
    """Where containers of one image are started, with a launcher of its own."""

    noting: Noting
    platform: BwrapPlatform
    image: str

    async def run(self, name: str, *args: str) -> None:
        directory = Path.cwd() / name
        scratch = directory / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        spec = ContainerSpec(
            name=name,
            image=self.image,
            args=args,
            environment={},
            mounts=(),
            stdout=directory / "stdout",
            stderr=directory / "stderr",
            scratch=scratch,
        )
        async with self.platform.start(spec) as container:
            code = await container.wait()
        assert code == 0, (directory / "stderr").read_text()


@asynccontextmanager
async def open_place(settings: PilotSettings) -> AsyncIterator[Place]:
    async with open_launcher() as launcher:
        noting = Noting(launcher)
        async with open_bwrap(noting, settings) as platform:
            yield Place(noting, platform, await platform.prepare(settings.task_image))


async def starts_ms(settings: PilotSettings, count: int) -> dict[str, float]:
    """ms for each of so many containers, one after the other: through the launcher, and as many alone."""
    async with open_place(settings) as place:
        await place.run("one", "true")
        began = time.perf_counter()
        for _ in range(count):
            await place.run("one", "true")
        through = time.perf_counter() - began
        assert place.noting.command is not None
        # Here, because the files that its words name are there as long as the platform.
        began = time.perf_counter()
        alone(place.noting.command, count)
        by_itself = time.perf_counter() - began
    return {"launcher_ms": 1000 * through / count, "alone_ms": 1000 * by_itself / count}


async def memory_mb(settings: PilotSettings) -> float:
    """Of the launcher and its supervisors while all slots have a container, shared pages divided."""
    async with open_place(settings) as place, trio.open_nursery() as nursery:
        for number in range(SLOTS):
            nursery.start_soon(place.run, f"slot-{number}", "sleep", "1")
        await trio.sleep(0.5)
        each = [_pss_mb(process) for process in _of_launcher()]
    return sum(each)


def _of_launcher() -> list[Path]:
    name = Path(program.__file__).name.encode()
    return [each.parent for each in Path("/proc").glob("[0-9]*/cmdline") if name in each.read_bytes()]


def _pss_mb(process: Path) -> float:
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def alone(command: Command, count: int) -> None:
    """The same containers without a launcher."""
    stdin = (command.stdin or "").encode("utf-8", "surrogateescape")
    for _ in range(count):
        subprocess.run(command.argv, input=stdin, env={}, cwd="/", check=True, stdout=subprocess.DEVNULL)


def main(count: int) -> dict[str, float]:
    settings = read(os.environ)
    return {**trio.run(starts_ms, settings, count), "launcher_mb": trio.run(memory_mb, settings)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
