"""What a task sees with each launcher, as a program: it runs where a pilot runs, and prints it all as JSON.

    python isolation_views.py IMAGE DIRECTORY PLATFORM…

DIRECTORY stands for a worker's own: tasks must not see what is in it. `isolation_look.py` lies beside this file. With
`PLATFORM-begun` the container is begun before its task is known, and its directories are renamed in between.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from isolation_look import session_keyring

from ewms.pilot.containers import open_platform
from ewms.pilot.containers.base import ContainerSpec, Mount, StartsAhead
from ewms.pilot.settings import read

PATIENCE = 60
TOKEN = "token-of-the-pilots-queue"
TASK_TOKEN = "value-of-the-tasks-own-secret"
MARKER = "marker-of-the-pilot"
TASK_VARIABLES = {"TASK_SECRET": TASK_TOKEN, "LC_ALL": "C", "ODD": "a 'b' \"c\" $d\n"}
IO = "/ewms-pilot-data/task-io"
SITE = "/site/data"
HIDDEN = (MARKER, "stdoutfile", "stderrfile", ".job.ad", ".machine.ad", ".chirp.config", "ewms_htcondor_envfile.sh")


async def view(platform: str, image: str, directory: Path) -> dict[str, Any]:
    """What a task of `platform` sees."""
    name, _, begun_first = platform.partition("-")
    settings = read(
        {
            "EWMS_PILOT_TASK_IMAGE": image,
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": name,
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
        }
    )
    spec = _spec(image, directory)
    async with open_platform(settings) as opened:
        await opened.prepare(image)
        if begun_first:
            assert isinstance(opened, StartsAhead)
            before = _spec(image, directory.with_name(f"before-{directory.name}"))
            begun = await opened.begin(attrs.evolve(before, args=(), environment={}))
            shutil.rmtree(directory)
            before.scratch.parent.rename(directory)
            spec = attrs.evolve(spec, begun=begun)
        with trio.fail_after(PATIENCE):
            async with opened.start(spec) as container, trio.open_nursery() as nursery:
                command_lines: list[str] = []
                nursery.start_soon(_look_outside, directory / "task-io", command_lines)
                code = await container.wait()
                nursery.cancel_scope.cancel()
    if code != 0:
        sys.exit(f"{platform}: exit code {code}: {spec.stderr.read_text()}")
    return {
        **json.loads(spec.stdout.read_text()),
        "command_lines_outside": command_lines,
        "stderr": spec.stderr.read_text(),
        "io": sorted(path.name for path in (directory / "task-io").iterdir()),
    }


async def _look_outside(io: Path, command_lines: list[str]) -> None:
    while not (io / "ready").exists():  # noqa: ASYNC110  a container raises no events here
        await trio.sleep(0.01)
    command_lines += _command_lines()
    (io / "go").touch()
    await trio.sleep_forever()


def _spec(image: str, directory: Path) -> ContainerSpec:
    places = {name: directory / name for name in ("data-hub", "task-io", "site", "scratch", "outputs")}
    for place in places.values():
        place.mkdir(parents=True)
    program = Path(__file__).with_name("isolation_look.py")
    shutil.copy(program, places["site"])
    return ContainerSpec(
        name="ewms-look",
        image=image,
        args=("python3", f"{SITE}/{program.name}", IO, *HIDDEN),
        environment=TASK_VARIABLES,
        mounts=(
            Mount(places["data-hub"], Path("/ewms-pilot-data/data-hub")),
            Mount(places["site"], Path(SITE), read_only=True),
            Mount(places["task-io"], Path(IO)),
        ),
        stdout=places["outputs"] / "stdoutfile",
        stderr=places["outputs"] / "stderrfile",
        scratch=places["scratch"],
    )


def pilot(directory: Path) -> dict[str, Any]:
    """What the pilot itself sees."""
    return {
        "namespaces": {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()},
        "hosts": Path("/etc/hosts").read_text("latin-1"),
        "resolv.conf": Path("/etc/resolv.conf").read_text("latin-1"),
        "session_keyring": session_keyring(),
        "command_lines": _command_lines(),
        "directory": str(directory),
        "marked": [str(path) for path in _marked(directory) if path.exists()],
    }


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text("latin-1"))
        except OSError:
            continue
    return found


def _marked(directory: Path) -> list[Path]:
    places = [directory, *map(Path, ("/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp"))]
    return [place / MARKER for place in places if place.is_dir()]  # a machine may have no /dev/mqueue


@contextmanager
def something_to_see(directory: Path) -> Iterator[None]:
    """Files and a process of the pilot's own, which no task may see."""
    with ExitStack() as stack:
        for path in _marked(directory):
            path.touch()
            stack.callback(path.unlink)
        process = stack.enter_context(
            subprocess.Popen(["sh", "-c", "sleep 1000; true", MARKER], start_new_session=True)
        )
        stack.callback(os.killpg, process.pid, 9)
        while MARKER not in Path(f"/proc/{process.pid}/cmdline").read_text():
            time.sleep(0.01)  # it has begun, but does not show its arguments yet
        yield


async def main(image: str, directory: Path, *platforms: str) -> None:
    os.environ["EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN"] = TOKEN
    with something_to_see(directory):
        seen: dict[str, Any] = {"pilot": pilot(directory)}
        for platform in platforms:
            seen[platform] = await view(platform, image, directory / f"of-{platform}")
    print(json.dumps(seen))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]).absolute(), *sys.argv[3:])
