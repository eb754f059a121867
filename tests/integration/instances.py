"""Instances of the TMS under a real systemd beside a real HTCondor, installed with install.sh as an operator does."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio
from asking import DEADLINE_S, request

from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.pool.booted import Booted, boot_systemd
from ewms.testing.pool.data import containers_dir
from ewms.testing.stand import Stand, Workflow, open_stand, tms_environment

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

UNITS: Final = "/etc/systemd/system"
SOURCE: Final = containers_dir() / "systemd"
INSTALL: Final = str(SOURCE / "install.sh")
LINK: Final = "apptainer_container_symlink"
WATCHDOG_S: Final = 15
_REMOVE: Final = f"""rm -rf /var/lib/ewms-tms /usr/local/libexec/ewms-tms {UNITS}/ewms-tms* {UNITS}/*.wants/ewms-tms* \
    /home/ewms/.config/systemd /home/ewms/.local /tmp/shims"""
DROP_IN: Final = f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=0.2\n"


@attrs.frozen
class Instance:
    """The instance `dev`, installed for the machine; no release yet, and not started."""

    ground: Ground
    stand: Stand
    booted: Booted
    directory: str = "/var/lib/ewms-tms/dev"
    unit: str = "ewms-tms@dev.service"

    # --- what an operator does ---

    async def run(self, *words: str, check: bool = False) -> "subprocess.CompletedProcess[bytes]":
        """As root, in the instance's directory."""
        return await self.booted.inside.run(list(words), user="root", cwd=self.directory, check=check)

    async def shell(self, script: str) -> str:
        """What a shell script of root's says."""
        return (await self.run("sh", "-c", script)).stdout.decode()

    async def write(self, path: str, text: str, mode: str = "0644") -> None:
        await self.booted.inside.run(
            ["install", "-D", "-m", mode, "/dev/stdin", path], user="root", stdin=text.encode()
        )

    async def configure(self, drop_in: str = DROP_IN, **settings: str) -> None:
        environment = tms_environment(self.ground, self.stand.wms, **settings)
        envfile = "".join(f'{name}="{value}"\n' for name, value in environment.items())
        await self.write(f"{self.directory}/envfile", envfile, "0600")
        await self.write(f"{UNITS}/{self.unit}.d/test.conf", drop_in)
        await self.booted.systemctl("daemon-reload")

    async def point_at(self, release: str) -> None:
        await self.run("ln", "-sfn", release, LINK, check=True)

    # --- what is seen ---

    async def release(self) -> str:
        return (await self.run("readlink", LINK, check=True)).stdout.decode().strip()

    async def state(self) -> str:
        return await self.booted.property(self.unit, "ActiveState")

    async def main_pid(self) -> int:
        """As it is seen in the namespace."""
        return int(await self.booted.property(self.unit, "MainPID"))

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        with trio.move_on_after(DEADLINE_S):
            while True:
                if await condition():
                    return
                await trio.sleep(0.2)
        journal = await self.booted.journal(self.unit)
        pytest.fail(f"not {what} within {DEADLINE_S} s; the journal ends:\n{journal[-3000:]}")

    async def until_is(self, state: str) -> None:
        async def is_it() -> bool:
            return await self.state() == state

        await self.until(is_it, state)

    async def until_is_another_than(self, pid: int) -> None:
        async def is_another() -> bool:
            return await self.main_pid() not in (0, pid) and await self.state() == "active"

        await self.until(is_another, "restarted")

    async def says(self, text: str) -> None:
        async def does() -> bool:
            return text in await self.booted.journal(self.unit)

        await self.until(does, f"saying {text!r}")

    async def is_in(self, workflow: Workflow, phase: str) -> None:
        async def does() -> bool:
            return str((await self.stand.taskforce(workflow))["phase"]) == phase

        await self.until(does, phase)

    async def clusters(self, workflow: Workflow) -> set[str]:
        """The taskforce's clusters, whether they are in the queue or left it."""
        query = ["-constraint", f'EWMSTaskforceUUID == "{workflow.taskforce_uuid}"', "-af", "ClusterId"]
        found = [await self.booted.inside.run([program, *query]) for program in ("condor_q", "condor_history")]
        return {word.decode() for each in found for word in each.stdout.split()}

    # --- what a user does ---

    async def submitted(self) -> Workflow:
        workflow = await self.stand.request(request(self.ground, "sleep 1000", workers=1))
        await self.is_in(workflow, "condor-submit")
        return workflow

    async def ended(self, workflow: Workflow) -> None:
        await self.stand.finish(workflow)
        await self.is_in(workflow, "condor-complete")


@asynccontextmanager
async def boot_clean(pool: "Pool") -> AsyncIterator[Booted]:
    """Boot systemd where nothing of ours is installed: the pool keeps what an earlier test wrote."""
    async with boot_systemd(pool.inside, pool.logs / "boot.log") as booted:
        await booted.inside.run(["sh", "-c", _REMOVE], user="root")
        await booted.systemctl("daemon-reload")
        yield booted


@asynccontextmanager
async def open_instance(pool: "Pool", work_dir: Path) -> AsyncIterator[Instance]:
    """Boot systemd, start a WMS stand-in, install the instance, and fill in its envfile."""
    ground = pool_ground(pool, pool.job_dir.parent)
    async with boot_clean(pool) as booted, open_stand(ground, work_dir) as stand:
        instance = Instance(ground, stand, booted)
        await booted.inside.run([INSTALL, "dev"], user="root")
        await instance.configure()
        yield instance
