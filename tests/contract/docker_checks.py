"""What is Docker's own, as a program that runs beside a daemon; used as `container_checks.py` is.

python docker_checks.py IMAGE DIRECTORY REGISTRY CHECK
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import structlog
import trio
from container_checks import CLINGING, PATIENCE, Bench, _alive, _make, _marker, _until

from ewms.pilot.containers import docker, open_platform
from ewms.pilot.containers.base import ContainerError, ImageUnusable
from ewms.pilot.containers.docker import Client, DockerPlatform
from ewms.pilot.containers.dockermeter import Meter
from ewms.pilot.containers.ownership import Owner
from ewms.pilot.settings import PilotSettings, read

REGISTRY = ""


def settings(**more: str) -> PilotSettings:
    return read(
        {
            "EWMS_PILOT_TASK_IMAGE": "unused",
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": "docker",
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
        }
        | more
    )


def client(bench: Bench) -> Client:
    assert isinstance(bench.platform, DockerPlatform)
    return bench.platform.client


def stderr(bench: Bench) -> str:
    return (bench.directory / "stderr").read_text()


async def containers(bench: Bench, *words: str) -> list[str]:
    return (await client(bench).ask("ps", "--all", "--quiet", *words)).split()


async def nothing_is_left_and_all_is_labelled(bench: Bench) -> None:
    async with bench.start("sh", "-c", f"touch {bench.inside}/ready; sleep 100"):
        await _until((bench.io / "ready").exists)
        assert len(await containers(bench, "--filter", f"label=ewms.pilot={Owner.this_process()}")) == 1
    assert await containers(bench) == []


async def a_task_runs_as_the_pilots_user_and_cannot_become_another(bench: Bench) -> None:
    assert (await bench.seen())["uid"] == os.getuid()
    assert (bench.io / "seen.json").stat().st_uid == os.getuid()
    # The image's su is set-uid root.
    assert await bench.run("sh", "-c", f"grep -h NoNewPrivs /proc/self/status > {bench.inside}/status") == 0
    assert (bench.io / "status").read_text().split() == ["NoNewPrivs:", "1"]


async def a_hostile_task_reaches_nothing(bench: Bench) -> None:
    # Its root it may write to: that is its own, and gone with it.
    program = Path(__file__).with_name("hostile_task.py").read_text()  # noqa: ASYNC240  a check does one thing
    assert await bench.run("python3", "-c", program, f"{bench.inside}/out.json", bench.inside, "1") == 0, stderr(bench)
    got = json.loads((bench.io / "out.json").read_text())
    assert {name: found for name, found in got.items() if found and name not in ("home", "write_elsewhere")} == {}


async def values_stand_on_no_command_line_and_reach_no_program_of_the_host(bench: Bench) -> None:
    values = {"LD_PRELOAD": "/no/such/library.so", "TOKEN": "hidden-value", "LINES": "hidden\nlines"}
    async with bench.start("sh", "-c", f"touch {bench.inside}/ready; sleep 100", environment=values):
        await _until((bench.io / "ready").exists)
        assert _alive("hidden") == []
        mode = (bench.directory / "scratch" / "environment").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        found = _environments("docker\0")
        assert found
        assert all("LD_PRELOAD" not in text for text in found)
        assert any("LINES=hidden\nlines" in text for text in found)


async def an_environment_that_cannot_be_passed_is_said_before_any_event(bench: Bench) -> None:
    with _refused("'LD_PRELOAD' cannot be set"):
        async with open_platform(settings(EWMS_PILOT_TASK_ENV_JSON='{"LD_PRELOAD": "a\\nb"}')):
            pass


async def shared_memory_is_as_large_as_was_set(bench: Bench) -> None:
    async with open_platform(settings(_EWMS_PILOT_DOCKER_SHM_SIZE="99m")) as platform:
        own = attrs.evolve(bench, platform=platform)
        assert await own.run("sh", "-c", f"df -k --output=size /dev/shm > {own.inside}/size") == 0
    assert (bench.io / "size").read_text().split()[-1] == str(99 * 1024)


async def what_a_container_used_is_known(bench: Bench) -> None:
    work = (
        "import time; x = bytearray(80_000_000); end = time.process_time() + 1.5\nwhile time.process_time() < end: pass"
    )
    async with bench.start("sh", "-c", 'python3 -c "$1"; sleep 4', "sh", work) as container:
        assert await container.wait() == 0
    assert 1.4 < (container.usage.cpu_s or 0) < 4
    assert 80_000_000 < (container.usage.peak_memory or 0) < 200_000_000


async def a_tasks_own_125_is_its_exit_code(bench: Bench) -> None:
    assert await bench.run("sh", "-c", "echo docker is fine >&2; exit 125") == 125


async def what_the_daemon_refuses_is_the_runtimes_fault(bench: Bench) -> None:
    assert isinstance(bench.platform, DockerPlatform)
    options = attrs.evolve(bench.platform.options, user="no-such-user")
    own = attrs.evolve(bench, platform=attrs.evolve(bench.platform, options=options))
    with _refused("no-such-user"):
        await own.run("true")
    assert await containers(bench) == []


async def the_self_check_starts_a_container_and_removes_it(bench: Bench) -> None:
    """One that runs `true`, and nothing of the image's own; an image without `true` is as good."""
    ask = client(bench).ask
    archive = bench.directory / "image.tar"
    with tarfile.open(archive, "w"):
        pass
    await ask("import", str(archive), "empty:1")
    made = (await ask("create", bench.image, "true")).strip()
    await ask("commit", "--change", f'ENTRYPOINT ["touch", "{bench.inside}/touched"]', made, "touching:1")
    await ask("rm", made)
    began = f"{time.time():.3f}"
    for image in ("touching:1", "empty:1"):
        await bench.platform.check(attrs.evolve(bench.spec(), image=image))
    until = f"{time.time():.3f}"
    seen = (await ask("events", "--since", began, "--until", until, "--format", "{{.Action}}")).split()
    assert [seen.count(action) for action in ("create", "start", "destroy")] == [2, 2, 2], seen
    assert await containers(bench) == []
    assert not (bench.io / "touched").exists()
    assert await attrs.evolve(bench, image="touching:1").run() == 0
    assert (bench.io / "touched").exists()
    await ask("rmi", "touching:1", "empty:1")


async def a_machine_on_which_no_container_starts_is_said(bench: Bench) -> None:
    assert isinstance(bench.platform, DockerPlatform)
    nobody = attrs.evolve(bench.platform.options, user="no-such-user")
    with _refused("no-such-user"):
        await attrs.evolve(bench.platform, options=nobody).check(bench.spec())
    with _refused("No such image|not found"):
        await bench.platform.check(attrs.evolve(bench.spec(), image="never-pulled:1"))
    lost = attrs.evolve(client(bench), env={**client(bench).env, "DOCKER_HOST": "unix:///no/such/socket"})
    with _refused("/no/such/socket"):
        await attrs.evolve(bench.platform, client=lost).check(bench.spec())
    assert await containers(bench) == []


async def a_client_that_was_killed_takes_its_container_with_it(bench: Bench) -> None:
    marker = _marker()
    with trio.fail_after(PATIENCE):
        async with bench.start("python3", "-c", CLINGING, bench.inside, "1000", marker) as container:
            await _until((bench.io / "ready").exists)
            for pid in _pids("docker\0", marker):
                os.kill(pid, signal.SIGKILL)
            assert await container.wait() == 128 + signal.SIGKILL
        assert _alive(marker) == []
    assert await containers(bench) == []


async def cancelled_at_any_moment_nothing_stays(bench: Bench) -> None:
    for moment in (0, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.6):
        marker = _marker()
        with trio.move_on_after(moment):
            await bench.run("python3", "-c", CLINGING, bench.inside, "1000", marker)
        assert _alive(marker) == []
        assert await containers(bench) == []


async def without_its_daemon_a_container_is_gone_all_the_same(bench: Bench) -> None:
    """A broken daemon is played by a client that cannot reach it; the container's own client can."""
    assert isinstance(bench.platform, DockerPlatform)
    marker = _marker()
    lost = attrs.evolve(client(bench), env={**client(bench).env, "DOCKER_HOST": "unix:///no/such/socket"})
    meter = Meter(bench.directory / "scratch" / "container-id")
    with trio.fail_after(PATIENCE):
        async with bench.start("python3", "-c", CLINGING, bench.inside, "1000", marker):
            await _until((bench.io / "ready").exists)
            await attrs.evolve(bench.platform, client=lost)._remove("of-no-use", meter)
            await _until(lambda: not [pid for pid in _alive(marker) if int(pid) not in _pids("docker\0", marker)])


async def the_next_pilot_removes_what_dead_ones_left(bench: Bench) -> None:
    me = Owner.this_process()
    labels = {
        "dead": attrs.evolve(me, pid=4_000_000),
        "alive": me,
        "of-another-user": attrs.evolve(me, pid=4_000_000, uid=me.uid + 1),
    }
    sleep = (bench.image, "sleep", "1000")
    for name, owner in labels.items():
        await client(bench).ask("run", "--detach", "--name", name, "--label", f"ewms.pilot={owner}", *sleep)
    await client(bench).ask("run", "--detach", "--name", "somebodys", *sleep)
    async with open_platform(settings()):
        names = (await client(bench).ask("ps", "--all", "--format", "{{.Names}}")).split()
    await client(bench).ask("rm", "--force", *names)
    assert sorted(names) == ["alive", "of-another-user", "somebodys"]


async def a_pilot_whose_launcher_died_with_it_is_cleaned_up_after(bench: Bench) -> None:
    """As when HTCondor kills everything of a job at once."""
    marker = _marker()
    argv = [sys.executable, __file__, bench.image, str(bench.directory), REGISTRY, "hang", marker]
    pilot = await trio.lowlevel.open_process(argv)
    with trio.fail_after(PATIENCE):
        await _until((bench.io / "ready").exists)
        for pid in sorted({pilot.pid, *_pids("launcher.py"), *_pids("dockerreaper.py"), *_pids("docker\0", marker)}):
            if pid not in OURS:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await pilot.wait()
        assert _alive(marker)
        async with open_platform(settings()):
            assert _alive(marker) == []
    assert await containers(bench) == []


async def an_image_that_is_missing_is_pulled_once(bench: Bench) -> None:
    docker.PULL_TELL_S = 0.01  # type: ignore[misc]
    ask = client(bench).ask
    archive = bench.directory / "image.tar"
    # Large enough for a pull that lasts a moment.
    (bench.io / "large").write_bytes(os.urandom(20_000_000))
    subprocess.run(["tar", "-C", str(bench.io), "-cf", str(archive), "."], check=True)  # noqa: ASYNC221
    name, unknown = f"{REGISTRY}/pulled:1", f"{REGISTRY}/never-pushed:1"
    made = (await ask("import", str(archive), name)).strip()
    await ask("push", "--quiet", name)
    await ask("rmi", name)
    with structlog.testing.capture_logs() as logs:
        assert await bench.platform.prepare(name) == made
    events = [entry["event"] for entry in logs]
    assert events[0] == "pulling the image"
    assert "still pulling the image" in events
    assert events[-1] == "pulled the image"
    # What is here is not asked for.
    await ask("tag", name, unknown)
    with structlog.testing.capture_logs() as logs:
        assert await bench.platform.prepare(unknown) == made
    assert logs == []
    await ask("rmi", name, unknown)


async def an_image_that_the_registry_does_not_have_is_said(bench: Bench) -> None:
    with _refused(f"{REGISTRY}/no-such:1 cannot be pulled .*(not found|unknown)", ImageUnusable):
        await bench.platform.prepare(f"{REGISTRY}/no-such:1")


async def a_pull_has_a_limit(bench: Bench) -> None:
    docker.PULL_LIMIT_S = 0.5  # type: ignore[misc]
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(PATIENCE):
        async with listeners[0]:
            port = listeners[0].socket.getsockname()[1]
            with _refused("was not pulled within 0.5 s", ImageUnusable):
                await bench.platform.prepare(f"127.0.0.1:{port}/silent:1")


async def a_directory_is_no_docker_image(bench: Bench) -> None:
    with _refused("is a directory; Docker needs an image's name", ImageUnusable):
        await bench.platform.prepare(str(bench.directory))


async def a_daemon_that_is_not_there_is_said(bench: Bench) -> None:
    with _refused("the Docker daemon cannot be used by this user: .*/no/such/socket"):
        async with open_platform(settings(DOCKER_HOST="unix:///no/such/socket")):
            pass


async def hang(bench: Bench) -> None:
    """Not a check: what the killed pilot of one of them runs."""
    await bench.run("python3", "-c", CLINGING, bench.inside, "1000", sys.argv[5])


CHECKS: tuple[Callable[[Bench], Awaitable[None]], ...] = (
    nothing_is_left_and_all_is_labelled,
    a_task_runs_as_the_pilots_user_and_cannot_become_another,
    a_hostile_task_reaches_nothing,
    values_stand_on_no_command_line_and_reach_no_program_of_the_host,
    an_environment_that_cannot_be_passed_is_said_before_any_event,
    shared_memory_is_as_large_as_was_set,
    what_a_container_used_is_known,
    a_tasks_own_125_is_its_exit_code,
    what_the_daemon_refuses_is_the_runtimes_fault,
    the_self_check_starts_a_container_and_removes_it,
    a_machine_on_which_no_container_starts_is_said,
    a_client_that_was_killed_takes_its_container_with_it,
    cancelled_at_any_moment_nothing_stays,
    without_its_daemon_a_container_is_gone_all_the_same,
    the_next_pilot_removes_what_dead_ones_left,
    a_pilot_whose_launcher_died_with_it_is_cleaned_up_after,
    an_image_that_is_missing_is_pulled_once,
    an_image_that_the_registry_does_not_have_is_said,
    a_pull_has_a_limit,
    a_directory_is_no_docker_image,
    a_daemon_that_is_not_there_is_said,
)
OURS: set[int] = set()
"""This program's own launcher and reaper."""


@contextmanager
def _refused(pattern: str, kind: type[Exception] = ContainerError) -> Iterator[None]:
    said = ""
    try:
        yield
    except kind as error:
        said = str(error)
    assert re.search(pattern, said, re.DOTALL), said or "nothing was refused"


def _pids(*parts: str) -> list[int]:
    """The processes here whose command lines hold all of `parts`."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            with suppress(OSError):
                line = (directory / "cmdline").read_bytes().decode(errors="replace")
                if all(part in line for part in parts):
                    found.append(int(directory.name))
    return found


def _environments(*parts: str) -> list[str]:
    found = []
    for pid in _pids(*parts):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
    return found


async def main(image: str, directory: Path, check: Callable[[Bench], Awaitable[None]]) -> None:
    async with open_platform(settings()) as platform:
        OURS.update((*_pids("launcher.py"), *_pids("dockerreaper.py")))
        bench = Bench(platform, await platform.prepare(image), directory)
        _make(bench)
        await check(bench)


if __name__ == "__main__":
    REGISTRY = sys.argv[3]
    trio.run(main, sys.argv[1], Path(sys.argv[2]), globals()[sys.argv[4]])
