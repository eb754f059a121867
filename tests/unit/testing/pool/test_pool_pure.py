"""The pure parts: recipes, password files, wheels, what a machine lacks."""

import sys
import zipfile
from pathlib import Path

import pytest

from ewms.testing.pool import surroundings
from ewms.testing.pool.namespace import User, read_users
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.rootfs import Recipe
from ewms.testing.pool.sites import RootPython, debian_version
from ewms.testing.pool.wheels import requirements, running_wheel

RECIPE = Recipe("trixie", ("python3", "apptainer"), ('chroot "$1" true',), {"sid": ("apptainer",)})


def test_recipe_becomes_a_command() -> None:
    command = RECIPE.mmdebstrap("http://m/debian", Path("/cache/new"), Path("/cache/tmp/some where"))
    assert "--include=python3,apptainer" in command
    assert "--setup-hook=upload '/cache/tmp/some where' /etc/apt/preferences.d/suites" in command
    assert '--customize-hook=chroot "$1" true' in command
    assert command[-4:] == ["trixie", "/cache/new", "deb http://m/debian trixie main", "deb http://m/debian sid main"]


def test_only_what_is_named_comes_from_another_suite() -> None:
    assert RECIPE.preferences() == (
        "Package: *\nPin: release n=sid\nPin-Priority: 50\n\n"
        "Package: apptainer\nPin: release n=sid\nPin-Priority: 990\n"
    )


def test_users() -> None:
    text = "root:x:0:0:root:/root:/bin/bash\nbroken\newms:x:21000:21001:,,,:/home/ewms:/bin/sh\n"
    assert read_users(text) == {"root": User(0, 0, "/root"), "ewms": User(21000, 21001, "/home/ewms")}


def test_free_ports_differ() -> None:
    assert len(set(free_ports(8))) == 8


def test_python_and_versions_of_a_root(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").symlink_to("python3.14")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: condor-extra\nVersion: 1.0\n\nPackage: condor\nStatus: install ok\nVersion: 1:25.14.1+dfsg-1\n\n"
    )
    assert RootPython.of(tmp_path).site_dir == "/usr/local/lib/python3.14/dist-packages"
    assert debian_version(tmp_path, "condor") == "25.14.1"


def test_wheel_of_the_running_package(tmp_path: Path) -> None:
    wheel = running_wheel(tmp_path)
    first = wheel.read_bytes()
    assert running_wheel(tmp_path).read_bytes() == first
    assert any(need.startswith("htcondor") for need in requirements(wheel))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {"ewms/cli.py", "ewms/_containers/pilot.def"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_switched_off_user_namespaces_are_named(tmp_path: Path) -> None:
    switch = tmp_path / "unprivileged_userns_clone"
    switches = {str(tmp_path / "not there"): "0", str(switch): "0"}
    switch.write_text("1\n")
    assert not surroundings.user_namespaces(switches)
    switch.write_text("0\n")
    assert str(switch) in surroundings.user_namespaces(switches)


def test_missing_tools_are_named() -> None:
    assert not surroundings.tools(lambda _: "/usr/bin/it")
    assert "pivot_root" in surroundings.tools(lambda tool: None if tool == "pivot_root" else "/usr/bin/it")


@pytest.mark.skipif(sys.platform != "linux", reason="says what other systems lack")
def test_linux_is_fine() -> None:
    assert not surroundings.system()
