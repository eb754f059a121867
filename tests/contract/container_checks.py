"""What every container platform does, as a program: each check runs where the platform's runtime is.

    python container_checks.py PLATFORM IMAGE DIRECTORY CHECK

`test_containers.py` runs it here for the platforms that need nothing, and inside the real pool for the others; a
platform is one more row there. With `PLATFORM-begun` each container is begun before it is known what it runs. A check
passes when the program ends with 0.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from ewms.pilot.containers import launcher, open_platform
from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, Mount, Platform, StartsAhead
from ewms.pilot.containers.begun import BegunContainer
from ewms.pilot.settings import read

PATIENCE = 30
SECRET = "token-that-no-task-may-see"

DUMP = """
import json, os, sys
seen = {"env": dict(os.environ), "argv": sys.argv[2:], "cwd": os.getcwd(), "uid": os.getuid()}
json.dump(seen, open(sys.argv[1] + "/seen.json", "w"))
"""

# Ignores every signal, double-forks into a session of its own, clears its environment, and holds its output open.
CLINGING = """
import os, signal, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        open(sys.argv[1] + "/grandchild", "w").close()
        time.sleep(1000)
    os._exit(0)
while not os.path.exists(sys.argv[1] + "/grandchild"): time.sleep(0.01)
open(sys.argv[1] + "/ready", "w").close()
time.sleep(float(sys.argv[2]))
"""


@attrs.frozen
class Bench:
    """A platform under test, and a directory of this check's own."""

    platform: Platform
    image: str
    directory: Path
    ahead: bool = False
    """Whether containers are begun first."""

    @property
    def io(self) -> Path:
        return self.directory / "io"

    @property
    def inside(self) -> str:
        """Where a container sees `io`."""
        return str(self.platform.path_inside(self.mount))

    @property
    def mount(self) -> Mount:
        return Mount(self.io, Path("/ewms-pilot-data/task-io"))

    def spec(self, *args: str, **more: Any) -> ContainerSpec:
        values: dict[str, Any] = {"environment": {}, "mounts": (self.mount,)} | more
        return ContainerSpec(
            name=f"ewms-check-{uuid.uuid4().hex[:8]}",
            image=self.image,
            args=args,
            stdout=self.directory / "stdout",
            stderr=self.directory / "stderr",
            scratch=self.directory / "scratch",
            **values,
        )

    def start(self, *args: str, **more: Any) -> AbstractAsyncContextManager[Container]:
        spec = self.spec(*args, **more)
        return self._begun(spec) if self.ahead and spec.begun is None else self.platform.start(spec)

    @asynccontextmanager
    async def _begun(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        assert isinstance(self.platform, StartsAhead)
        begun = await self.platform.begin(attrs.evolve(spec, args=(), environment={}))
        async with self.platform.start(attrs.evolve(spec, begun=begun)) as container:
            yield container

    async def run(self, *args: str, **more: Any) -> int:
        with trio.fail_after(PATIENCE):
            async with self.start(*args, **more) as container:
                return await container.wait()

    async def seen(self, *args: str, **more: Any) -> Any:
        """What a task saw of its environment and arguments."""
        code = await self.run("python3", "-c", DUMP, self.inside, *args, **more)
        assert code == 0, (self.directory / "stderr").read_text()
        return json.loads((self.io / "seen.json").read_text())


async def exit_code_and_separate_output(bench: Bench) -> None:
    assert await bench.run("sh", "-c", "echo out; echo err >&2; exit 7") == 7
    assert (bench.directory / "stdout").read_text() == "out\n"
    assert (bench.directory / "stderr").read_text() == "err\n"


async def death_by_a_signal_is_128_plus_its_number(bench: Bench) -> None:
    assert await bench.run("sh", "-c", "kill -9 $$") == 128 + signal.SIGKILL


async def environment_values_arrive_exactly(bench: Bench) -> None:
    values = {
        "QUOTES": "a\"b'c",
        "EQUALS": "x=y=",
        "LINES": "one\ntwo\n\n",
        "SHELL_THINGS": "$HOME `id` $(id) ${X:-y} ~ * ! # ;",
        "BACKSLASHES": "a\\n\\\\\\",
        "EMPTY": "",
        "SPACES": "  two  ",
        "COMMAS": "a,b",
        "UNICODE": "ünï☃",
        "CONTROL": "\t\r\x01",
        "lower_case": "1",
        "__script": "a name that a runtime's own script may use",
        "LONG": "x" * 100_000,
    }
    seen = (await bench.seen(environment=values))["env"]
    assert {name: seen.get(name) for name in values} == values


async def arguments_arrive_exactly(bench: Bench) -> None:
    words = [
        "a b",
        'q"x',
        "$HOME",
        "`id`",
        "back\\slash",
        "new\nline",
        "",
        "ü",
        "'",
        "*",
        "--flag",
        "-x",
        "a=b",
        "{{X}}",
    ]
    assert (await bench.seen(*words))["argv"] == words


async def nothing_of_the_pilots_environment_is_seen(bench: Bench) -> None:
    seen = (await bench.seen())["env"]
    assert SECRET not in json.dumps(seen)
    if bench.platform.isolates:
        pattern = f"[{SECRET[0]}]{SECRET[1:]}"  # which does not fit itself, on a command line
        found = await bench.run("sh", "-c", f"cat /proc/*/environ | grep -qa '{pattern}'")
        assert found != 0


async def what_the_runtime_inherits_opens_no_directory(bench: Bench) -> None:
    # HTCondor exports APPTAINER_BIND with the job's directory; main() set it to ours.
    if bench.platform.isolates:
        assert await bench.run("test", "-e", os.environ["APPTAINER_BIND"]) != 0
        assert await bench.run("test", "-e", str(bench.directory)) != 0


async def files_go_in_and_out_through_a_mount(bench: Bench) -> None:
    (bench.io / "in").write_bytes(b"\x00\xff\r\n")
    assert await bench.run("cp", f"{bench.inside}/in", f"{bench.inside}/out") == 0
    assert (bench.io / "out").read_bytes() == b"\x00\xff\r\n"


async def a_mount_with_odd_characters_in_its_path(bench: Bench) -> None:
    odd = bench.directory / 'a, "b" c'
    odd.mkdir()
    (odd / "in").write_text("x")
    mount = Mount(odd, Path("/odd, dir"))
    assert await bench.run("cat", f"{bench.platform.path_inside(mount)}/in", mounts=(mount,)) == 0


async def a_read_only_mount_cannot_be_written(bench: Bench) -> None:
    if bench.platform.isolates:
        mount = attrs.evolve(bench.mount, read_only=True)
        assert await bench.run("touch", f"{bench.inside}/x", mounts=(mount,)) != 0
        assert not list(bench.io.iterdir())


async def an_unsafe_mount_is_refused(bench: Bench) -> None:
    if bench.platform.isolates:
        (bench.directory / "link").symlink_to("/proc")
        for source in (Path("/proc"), bench.directory / "link", Path("/etc")):
            said = await _said(bench.run("true", mounts=(Mount(source, Path("/x")),)))
            assert "cannot mount" in said, source


async def there_is_room_to_write(bench: Bench) -> None:
    """/tmp and HOME are on disk, and end up in the scratch."""
    places = "$HOME /tmp" if bench.platform.isolates else "$HOME"
    script = f'for d in {places}; do head -c 70000000 /dev/zero > "$d/big" || exit 1; done; cd; pwd'
    assert await bench.run("sh", "-c", script) == 0, (bench.directory / "stderr").read_text()
    sizes = [path.stat().st_size for path in (bench.directory / "scratch").rglob("big")]
    assert sizes == [70_000_000] * len(places.split())


async def a_program_that_is_missing_is_an_error(bench: Bench) -> None:
    said = await _said(bench.run("no-such-program-anywhere"))
    assert "no-such-program-anywhere" in said or said in ("127", "255")


async def what_a_task_leaves_behind_is_gone_when_it_ended(bench: Bench) -> None:
    marker = _marker()
    assert await bench.run("python3", "-c", CLINGING, bench.inside, "0", marker) == 0
    assert _alive(marker) == []


async def a_task_that_is_cancelled_is_gone_with_its_whole_tree(bench: Bench) -> None:
    marker = _marker()
    began = float("inf")
    with trio.move_on_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.run, "python3", "-c", CLINGING, bench.inside, "1000", marker)
            await _until((bench.io / "ready").exists)
            assert len(_alive(marker)) >= 2
            began = time.monotonic()
            nursery.cancel_scope.cancel()
    assert _alive(marker) == []
    assert time.monotonic() - began < PATIENCE  # it would go on for 1000 s


async def when_the_pilot_is_killed_its_tasks_are_gone(bench: Bench) -> None:
    marker = _marker()
    command = [sys.executable, __file__, bench.platform.name, bench.image, str(bench.directory), "hang", marker]
    pilot = await trio.lowlevel.open_process(command)
    with trio.fail_after(PATIENCE):
        await _until((bench.io / "ready").exists)
        assert len(_alive(marker)) >= 3
        pilot.kill()
        await pilot.wait()
        await _until(lambda: not _alive(marker))


async def the_self_check_passes(bench: Bench) -> None:
    with trio.fail_after(PATIENCE):
        await bench.platform.check(bench.spec("true"))


async def what_it_used_is_known_also_when_it_was_killed(bench: Bench) -> None:
    if bench.platform.name == "docker":
        return  # the process that is seen is the client's
    code = "x = b'1' * 50_000_000\nfor _ in range(10_000_000): pass\nimport time, sys; time.sleep(float(sys.argv[1]))"
    for pause in ("0", "1000"):
        with trio.move_on_after(PATIENCE):
            async with bench.start("python3", "-c", code, pause) as container:
                if pause == "0":
                    await container.wait()
                else:
                    while (await container.memory() or 0) < 50_000_000:  # noqa: ASYNC110  /proc has no events
                        await trio.sleep(0.05)
        assert (container.usage.peak_memory or 0) > 50_000_000
        assert (container.usage.cpu_s or 0) > 0.02


async def several_containers_at_once(bench: Bench) -> None:
    async def one(number: int) -> None:
        own = attrs.evolve(bench, directory=bench.directory / str(number))
        _make(own)
        assert (await own.seen(str(number)))["argv"] == [str(number)]

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)


async def an_image_that_is_not_there_is_said(bench: Bench) -> None:
    if bench.platform.isolates:
        assert "/no/such/image" in await _said(bench.platform.prepare("/no/such/image"))


async def a_task_of_15_s_is_left_alone(bench: Bench) -> None:
    """A runtime that dies with the thread that forked it would end before: Trio's threads go after 10 s."""
    assert await bench.run("sh", "-c", "sleep 15; exit 4") == 4


async def a_task_has_its_three_streams_and_no_other_file(bench: Bench) -> None:
    script = "import os; print(*(fd for fd in range(3, 256) if os.path.lexists(f'/proc/self/fd/{fd}')))"
    assert await bench.run("python3", "-c", script) == 0
    assert (bench.directory / "stdout").read_text() == "\n"
    assert await bench.run("sh", "-c", "wc -c") == 0
    assert (bench.directory / "stdout").read_text().strip() == "0"


async def a_task_that_is_cancelled_can_flush_what_it_has(bench: Bench) -> None:
    script = "trap 'echo flushed; exit 0' TERM; echo > \"$0/ready\"; while :; do sleep 0.1; done"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run, "sh", "-c", script, bench.inside)
        with trio.fail_after(PATIENCE):
            await _until((bench.io / "ready").exists)
        nursery.cancel_scope.cancel()
    assert (bench.directory / "stdout").read_text() == "flushed\n"


async def hang(bench: Bench) -> None:
    """Not a check: what the killed pilot of one of them runs."""
    await bench.run("python3", "-c", CLINGING, bench.inside, "1000", sys.argv[5])


async def a_begun_container_goes_on_in_directories_with_new_names(bench: Bench) -> None:
    assert isinstance(bench.platform, StartsAhead)
    before = attrs.evolve(bench, directory=bench.directory / "before")
    _make(before)
    begun = await bench.platform.begin(before.spec())
    assert begun is not None
    after = attrs.evolve(bench, directory=bench.directory / "after")
    before.directory.rename(after.directory)
    _make(before)  # which nobody must use
    (after.io / "in").write_text("event")
    script = f"cat {bench.inside}/in > {bench.inside}/out; echo said; touch ~/there /tmp/there"
    assert await after.run("sh", "-c", script, begun=begun) == 0
    assert (after.io / "out").read_text() == "event"
    assert (after.directory / "stdout").read_text() == "said\n"
    assert len(list((after.directory / "scratch").glob("*/there"))) == 2
    assert not any(path.is_file() for path in before.directory.rglob("*"))


async def a_begun_container_that_is_not_wanted_leaves_nothing(bench: Bench) -> None:
    begun, pids = await _begun(bench)
    with trio.fail_after(PATIENCE):
        await begun.aclose()
        assert _still_there(pids) == []
        await begun.aclose()


async def a_begun_container_that_died_is_replaced(bench: Bench) -> None:
    begun, pids = await _begun(bench)
    while found := _still_there(pids):
        for pid in found:
            launcher._kill(pid, signal.SIGKILL)
        await trio.sleep(0.05)
    await trio.sleep(0.2)
    assert await bench.run("sh", "-c", "exit 7", begun=begun) == 7


async def what_is_too_long_for_a_begun_container_arrives_all_the_same(bench: Bench) -> None:
    begun, pids = await _begun(bench)
    text = "ü" * 60_000
    assert (await bench.seen(text, begun=begun))["argv"] == [text]
    assert _still_there(pids) == []


async def _begun(bench: Bench) -> tuple[BegunContainer, list[int]]:
    """One, and its processes."""
    assert isinstance(bench.platform, StartsAhead)
    begun = await bench.platform.begin(bench.spec())
    assert isinstance(begun, BegunContainer)
    pids = [begun.process.pid, *launcher._descendants(begun.process.pid)]
    assert len(pids) >= 2
    return begun, pids


def _still_there(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


Check = Callable[[Bench], Awaitable[None]]
CHECKS: tuple[Check, ...] = (
    exit_code_and_separate_output,
    death_by_a_signal_is_128_plus_its_number,
    environment_values_arrive_exactly,
    arguments_arrive_exactly,
    nothing_of_the_pilots_environment_is_seen,
    what_the_runtime_inherits_opens_no_directory,
    files_go_in_and_out_through_a_mount,
    a_mount_with_odd_characters_in_its_path,
    a_read_only_mount_cannot_be_written,
    an_unsafe_mount_is_refused,
    there_is_room_to_write,
    a_program_that_is_missing_is_an_error,
    what_a_task_leaves_behind_is_gone_when_it_ended,
    a_task_that_is_cancelled_is_gone_with_its_whole_tree,
    when_the_pilot_is_killed_its_tasks_are_gone,
    the_self_check_passes,
    what_it_used_is_known_also_when_it_was_killed,
    several_containers_at_once,
    an_image_that_is_not_there_is_said,
    a_task_of_15_s_is_left_alone,
    a_task_has_its_three_streams_and_no_other_file,
    a_task_that_is_cancelled_can_flush_what_it_has,
)

TOLD_LATER: tuple[Check, ...] = (
    exit_code_and_separate_output,
    environment_values_arrive_exactly,
    arguments_arrive_exactly,
    what_a_task_leaves_behind_is_gone_when_it_ended,
    when_the_pilot_is_killed_its_tasks_are_gone,
    a_task_has_its_three_streams_and_no_other_file,
    a_task_that_is_cancelled_can_flush_what_it_has,
)
"""Those of `CHECKS` that depend on what a container is told, and on who starts its program."""
BEGUN: tuple[Check, ...] = (
    a_begun_container_goes_on_in_directories_with_new_names,
    a_begun_container_that_is_not_wanted_leaves_nothing,
    a_begun_container_that_died_is_replaced,
    what_is_too_long_for_a_begun_container_arrives_all_the_same,
)
"""For platforms that can start ahead."""


async def _said(attempt: Awaitable[object]) -> str:
    """The platform's error, or else what the attempt gave."""
    try:
        return str(await attempt)
    except ContainerError as error:
        return str(error)


async def _until(condition: Callable[[], bool]) -> None:
    # Other processes and containers raise no events here.
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.02)


def _marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


def _alive(marker: str) -> list[str]:
    """The processes on this machine, containers included, with `marker` on their command line."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                if marker.encode() in (directory / "cmdline").read_bytes():
                    found.append(directory.name)
            except OSError:
                continue
    return found


def _make(bench: Bench) -> None:
    for path in (bench.io, bench.directory / "scratch"):
        path.mkdir(parents=True, exist_ok=True)


async def main(platform: str, image: str, directory: Path, check: Check) -> None:
    name, _, begun = platform.partition("-")
    settings = read(
        {
            "EWMS_PILOT_TASK_IMAGE": image,
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": name,
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
        }
    )
    os.environ["EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN"] = SECRET
    os.environ["APPTAINER_BIND"] = os.environ["SINGULARITY_BIND"] = str(directory)
    async with open_platform(settings) as opened:
        bench = Bench(opened, await opened.prepare(image), directory, ahead=bool(begun))
        _make(bench)
        await check(bench)


def run(command: list[str]) -> None:
    """Run this program; its output is the assertion's text."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]), globals()[sys.argv[4]])
