"""A root file system in use: its own mounts, processes and host name, the host's network; one kill ends it all."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

import attrs
import trio

from ewms.testing.pool import join
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.steps import PoolUnavailable, last_line

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER_DEADLINE_S: Final = 20
_LIFELINE_DEADLINE_S: Final = 10
_END_DEADLINE_S: Final = 20


@attrs.frozen
class User:
    """One line of the root's password file."""

    uid: int
    gid: int
    home: str


def read_users(passwd: str) -> dict[str, User]:
    """The users in the text of a password file."""
    rows = (line.split(":") for line in passwd.splitlines() if line.count(":") == 6)
    return {name: User(int(uid), int(gid), home) for name, _, uid, gid, _, home, _ in rows}


class CommandFailed(Exception):
    """A command inside the pool ended with a status other than 0."""


@attrs.frozen
class Namespace:
    """The inside of a root file system."""

    init_pid: int
    users: Mapping[str, User]
    _daemons: list[trio.Process] = attrs.field(factory=list)

    def command(
        self, argv: Sequence[str], *, user: str = "ewms", env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """The command line that runs `argv` inside, as `user`; to be started as root.

        The environment is that of the process started with it, plus HOME, USER, PATH, and `env`. Everybody can read
        command lines: no secrets in `argv` and `env`; give those in the process's environment.
        The process forwards signals, ends with the status of `argv`, and `argv` dies with it.
        """
        who = self.users[user]
        variables = {"HOME": who.home, "USER": user, "LOGNAME": user, "PATH": _PATH, **(env or {})}
        into = [str(self.init_pid), str(who.uid), str(who.gid), cwd or who.home]
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return [sys.executable, "-I", "-S", join.__file__, *into, "/usr/bin/env", *assignments, *argv]

    async def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "ewms",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside to its end, in a clean environment; stdout and stderr are captured.

        `env` is given to the process, not on its command line: secrets are fine.

        Raises:
            CommandFailed: `check`, and its status was not 0.
        """
        done = await trio.run_process(
            self.command(argv, user=user, cwd=cwd),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=dict(env or {}),
            start_new_session=True,
        )
        if check and done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise CommandFailed(f"{argv[0]}: exit status {done.returncode}: {said}")
        return done

    async def spawn(
        self, argv: Sequence[str], *, log: IO[bytes], user: str, env: Mapping[str, str] | None = None
    ) -> trio.Process:
        """Start a daemon inside that stays in the foreground, in a clean environment; its output goes to `log`.

        Nothing here ends it but the end of the namespace.
        """
        process = await trio.lowlevel.open_process(
            self.command(argv, user=user, cwd="/"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(env or {}),
            # A Ctrl-C at the terminal is for us; the daemons go with the namespace.
            start_new_session=True,
        )
        self._daemons.append(process)
        return process

    async def bind(self, directory: Path, path: str) -> None:
        """Make a directory of the host visible at `path` inside, read-only."""
        await self.run(["mkdir", "-p", path], user="root")
        await self.run(["mount", "--bind", str(directory), path], user="root")
        await self.run(["mount", "-o", "remount,bind,ro", path], user="root")

    async def reap(self) -> None:
        """Take note of the daemons' ends, once the namespace has ended."""
        for process in self._daemons:
            await process.wait()


@asynccontextmanager
async def open_namespace(root: Path, work_dir: Path, *, visible: Iterable[Path] = ()) -> AsyncIterator[Namespace]:
    """Enter `root`; `work_dir` and the directories in `visible` are there too, at their own paths.

    Leaving kills all that runs inside, and with it the mounts vanish. When this process dies first, the same happens.

    Raises:
        PoolUnavailable: the kernel or the surroundings do not allow it.
    """
    mount_point = work_dir / ".root"
    mount_point.mkdir(exist_ok=True)
    log = work_dir / "logs" / "enter.log"
    unshare = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--"]
    enter = ["/bin/sh", str(containers_dir() / "pool" / "enter.sh"), str(root), str(mount_point)]
    shown = map(str, dict.fromkeys([work_dir, *visible]))
    with log.open("ab") as errors:
        process = await trio.lowlevel.open_process(
            [*unshare, *enter, *shown],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={"PATH": _PATH},
            start_new_session=True,
        )
    inside = None
    try:
        init_pid = await _entered(process)
        if init_pid is None:
            raise PoolUnavailable(
                f"this machine does not let us enter a root file system: {last_line(log)} (a container needs to be "
                f"privileged for it)"
            )
        inside = Namespace(init_pid, read_users((root / "etc" / "passwd").read_text()))
        yield inside
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_DEADLINE_S):
            await _end(process)
            if inside is not None:
                await inside.reap()
        mount_point.rmdir()


async def _entered(process: trio.Process) -> int | None:
    assert process.stdout is not None
    told = b""
    with trio.move_on_after(_ENTER_DEADLINE_S):
        async for chunk in process.stdout:
            told += chunk
            if told.endswith(b"\n"):
                return int(told)
    return None


async def _end(process: trio.Process) -> None:
    """Let go of the lifeline: PID 1 ends, and the kernel kills everything before it reports that end."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.move_on_after(_LIFELINE_DEADLINE_S):
        await process.stdin.aclose()
        await process.stdout.aclose()
        await process.wait()
    # Only if PID 1 hangs; its death follows from this one's (--kill-child).
    process.kill()
    await process.wait()
