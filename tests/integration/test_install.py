"""install.sh on a machine where systemd and HTCondor run: for the machine, and for one user."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, until
from instances import INSTALL, UNITS, boot_clean
from tms_images import IMAGES, SETTINGS, publish

from ewms.testing.grounds import pool_ground
from ewms.testing.pool.booted import Booted
from ewms.testing.stand import open_stand, tms_environment

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

HOME: Final = "/var/lib/ewms-tms"
EXPOSURE: Final = 3.0
"""What `systemd-analyze security` may say at most; docs/operators.md has what it says, and why it is not less."""
RUNTIME: Final = {"XDG_RUNTIME_DIR": "/run/user/21000"}


@attrs.frozen
class Shell:
    """A machine's shell, of root or of one user."""

    booted: Booted
    user: str = "root"

    async def __call__(self, script: str, status: int = 0) -> str:
        """What a script says; it must end with that status."""
        done = await self.booted.inside.run(
            ["bash", "-euc", script],
            user=self.user,
            check=False,
            env=RUNTIME if self.user != "root" else {},
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == status, said
        return said


@pytest.fixture
async def booted(pool: "Pool") -> AsyncIterator[Booted]:
    async with boot_clean(pool) as up:
        yield up


async def test_an_instance_for_the_machine(booted: Booted) -> None:
    root = Shell(booted)
    said = await root(f"{INSTALL} prod")
    assert f"The instance prod is in {HOME}/prod" in said
    listed = await root(f"cd {HOME}/prod && stat -c '%n %A %U:%G' . *")
    assert listed.splitlines() == [
        ". drwxr-x--- root:ewms",
        "envfile -rw------- root:root",
        "ewms lrwxrwxrwx root:root",
        "update_tms_image_symlink.sh lrwxrwxrwx root:root",
    ]
    # Again: nothing that is there changes, and another instance comes beside it.
    await root(
        f"echo EWMS_ADDRESS=https://mine >> {HOME}/prod/envfile; ln -s /release {HOME}/prod/apptainer_container_symlink"
    )
    before = await root("cd / && tar -c var/lib/ewms-tms etc/systemd usr/local/libexec | sha256sum")
    assert "is left as it is" in await root(f"{INSTALL} prod")
    assert await root("cd / && tar -c var/lib/ewms-tms etc/systemd usr/local/libexec | sha256sum") == before
    await root(f"{INSTALL} dev")
    assert "EWMS_ADDRESS=\n" in await root(f"cat {HOME}/dev/envfile")

    # What somebody changed is not overwritten without being asked.
    await root(f"echo '# mine' >> {UNITS}/ewms-tms@.service")
    assert f"{UNITS}/ewms-tms@.service is there and differs" in await root(f"{INSTALL} other", status=1)
    await root(f"test ! -e {HOME}/other")
    await root(f"{INSTALL} --replace other")
    assert "# mine" not in await root(f"cat {UNITS}/ewms-tms@.service")


async def test_an_owner_that_there_is_not_yet_is_made(booted: Booted) -> None:
    root = Shell(booted)
    assert "user tmsowner made" in await root(f"{INSTALL} --owner tmsowner dev")
    await root("id tmsowner")
    assert await booted.property("ewms-tms@dev.service", "User") == "tmsowner"
    assert await root(f"stat -c %G {HOME}/dev") == "tmsowner\n"
    assert await booted.property("ewms-tms@prod.service", "User") == "ewms"
    await root(f"{INSTALL} --owner ewms dev")
    assert await booted.property("ewms-tms@dev.service", "User") == "ewms"
    assert await root(f"stat -c %G {HOME}/dev") == "ewms\n"
    await root(f"{INSTALL} --owner root dev2", status=2)


async def test_the_units_are_well_formed_and_hardened(booted: Booted) -> None:
    root = Shell(booted)
    await root(f"{INSTALL} dev; mkdir -p {HOME}/dev/r/bin; ln -s r {HOME}/dev/apptainer_container_symlink")
    units = [
        f"{UNITS}/{name}" for name in ("ewms-tms@dev.service", "ewms-tms@dev.path", "ewms-tms-restart@dev.service")
    ]
    assert await root(f"systemd-analyze verify {' '.join(units)}") == ""
    said = await root("systemd-analyze security --no-pager ewms-tms@dev.service")
    exposure = float(said.splitlines()[-1].split("ewms-tms@dev.service:")[1].split()[0])
    assert exposure <= EXPOSURE


async def test_an_instance_of_a_user(pool: "Pool", tms_image: str, booted: Booted, work_dir: Path) -> None:
    root, user = Shell(booted), Shell(booted, "ewms")
    await root(
        f"install -d -o ewms -g ewms -m 700 {RUNTIME['XDG_RUNTIME_DIR']} && systemd-run --quiet --unit=users-systemd"
        " --service-type=notify -p User=ewms -p Delegate=yes -p TasksMax=infinity"
        f" -E XDG_RUNTIME_DIR={RUNTIME['XDG_RUNTIME_DIR']} -E HOME=/home/ewms /usr/lib/systemd/systemd --user"
    )
    said = await user(f"{INSTALL} --user dev")
    assert "loginctl enable-linger" in said
    directory = said.partition("The instance dev is in ")[2].partition(". Next:")[0]
    assert directory.startswith("/home/ewms/")
    assert await user(f"stat -c %A {directory} {directory}/envfile") == "drwx------\n-rw-------\n"
    assert (
        await user("cd ~/.config/systemd/user && systemd-analyze --user verify ewms-tms@dev.service ewms-tms@dev.path")
        == ""
    )

    ground = attrs.evolve(pool_ground(pool, pool.job_dir.parent), job_dir=pool.job_dir / "of-a-user")
    async with open_stand(ground, work_dir) as stand:
        settings = {**tms_environment(ground, stand.wms), **SETTINGS}.items()
        envfile = "".join(f'{name}="{value}"\n' for name, value in settings)
        await booted.inside.run(["tee", f"{directory}/envfile"], stdin=envfile.encode())
        first, second = [await publish(booted, tms_image, version) for version in ("v1", "v2")]
        await user(f"cd {directory} && ./update_tms_image_symlink.sh v1")
        await user("systemctl --user enable --now ewms-tms@dev.service ewms-tms@dev.path")
        workflow = await stand.request(request(ground, "sleep 1000", workers=1))
        (work_dir / "tms.log").touch()
        await until(stand, workflow, lambda t: t["phase"] == "condor-submit", "submitted")
        said = await user(f"cd {directory} && ./update_tms_image_symlink.sh --watch 2 v2")
        assert f"done: {second} runs and is healthy" in said
        pid = await user("systemctl --user show -p MainPID --value ewms-tms@dev")
        await user(f"touch {directory}/envfile")
        with trio.fail_after(DEADLINE_S):
            while await user("systemctl --user show -p MainPID --value ewms-tms@dev") in (pid, "0\n"):  # noqa: ASYNC110  systemd sets no event
                await trio.sleep(0.2)
        await stand.finish(workflow)
        await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "complete")
    assert first == f"{IMAGES}:v1"
