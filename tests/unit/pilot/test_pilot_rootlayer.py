"""The layer over an image: its mount points are where the image's symlinks lead, and never outside of it."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from ewms.pilot.containers import rootlayer
from ewms.pilot.containers.base import ContainerError
from ewms.pilot.containers.rootlayer import Account, RootLayers, without_links

ACCOUNT = Account("/home/me", "me:x:1000:1000::/home/me:/bin/sh\n", "us:x:1000:me\n")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "image"
    for name in ("etc", "run", "usr/lib"):
        (image / name).mkdir(parents=True)
    (image / "lib").symlink_to("usr/lib")
    (image / "var").mkdir()
    (image / "var/run").symlink_to("/run")
    (image / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh")
    (image / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    return image


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[RootLayers]:
    made = RootLayers(ACCOUNT, tmp_path)
    yield made
    made.remove()


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/data/x", "/data/x"),
        ("/lib/x", "/usr/lib/x"),
        ("/var/run/x/y", "/run/x/y"),
        ("/lib", "/lib"),
        ("/up/etc/x", "/etc/x"),
        ("/out/x", "/etc/x"),
        ("/chain/x", "/run/x"),
    ],
)
def test_the_images_symlinks_are_followed_inside_the_image(image: Path, target: str, place: str) -> None:
    (image / "up").symlink_to("../..")
    (image / "out").symlink_to("../../../etc")
    (image / "chain").symlink_to("var/run")
    assert without_links(image, PurePosixPath(target)) == PurePosixPath(place)


def test_symlinks_without_an_end_are_an_error(image: Path) -> None:
    (image / "a").symlink_to("b")
    (image / "b").symlink_to("a")
    with pytest.raises(ContainerError, match="cannot mount at /a/x: the image's symlinks"):
        without_links(image, PurePosixPath("/a/x"))


def test_a_layer_has_mount_points_users_and_the_machines_files(
    image: Path, layers: RootLayers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 here\n")
    monkeypatch.setattr(rootlayer, "OF_THE_MACHINE", (str(hosts), str(tmp_path / "missing")))
    layer = layers.make(str(image), frozenset({"/var/run/x", "/data"}))
    assert layer.targets == {"/var/run/x": Path("/run/x"), "/data": Path("/data")}
    assert (layer.directory / "run/x").is_dir()
    assert (layer.directory / "data").is_dir()
    assert not (layer.directory / "var").exists()
    assert (layer.directory / "etc/passwd").read_text() == f"root:x:0:0::/root:/bin/sh\n{ACCOUNT.passwd}"
    assert not (layer.directory / "etc/group").exists()  # the image has none
    assert (layer.directory / hosts.relative_to("/")).read_text() == "127.0.0.1 here\n"


def test_an_images_links_show_no_file_of_the_machine(image: Path, layers: RootLayers, tmp_path: Path) -> None:
    secret = tmp_path / "envfile"
    secret.write_text("token")
    (image / "etc/passwd").unlink()
    (image / "etc/passwd").symlink_to(secret)
    (image / "etc/group").symlink_to("/etc/groups-of-the-image")
    (image / "etc/groups-of-the-image").write_text("them:x:1:\n")
    layer = layers.make(str(image), frozenset({"/data"}))
    assert not (layer.directory / "etc/passwd").exists()
    assert (layer.directory / "etc/group").read_text() == f"them:x:1:\n{ACCOUNT.groups}"


def test_a_layer_is_made_once_until_the_machine_changes(
    image: Path, layers: RootLayers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("old")
    monkeypatch.setattr(rootlayer, "OF_THE_MACHINE", (str(hosts),))
    targets = frozenset({"/data"})
    assert layers.made(str(image), targets) is None
    layer = layers.make(str(image), targets)
    assert layers.made(str(image), targets) is layer
    assert layers.made(str(image), frozenset({"/other"})) is None
    other = tmp_path / "new"
    other.write_text("new")
    other.rename(hosts)
    assert layers.made(str(image), targets) is None
    assert (layers.make(str(image), targets).directory / hosts.relative_to("/")).read_text() == "new"


def test_all_layers_go_in_the_end(image: Path, tmp_path: Path) -> None:
    layers = RootLayers(ACCOUNT, tmp_path)
    directory = layers.make(str(image), frozenset({"/data"})).directory
    layers.remove()
    assert not directory.exists()
    assert not directory.parent.exists()


def test_no_room_for_layers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match=r"cannot make a directory in .*missing: No such file"):
        RootLayers(ACCOUNT, tmp_path / "missing")


def test_the_account_is_this_processs() -> None:
    account = Account.of_this_process()
    me = pwd.getpwuid(os.getuid())
    assert account.home == me.pw_dir
    assert account.passwd.startswith(f"{me.pw_name}:x:{os.getuid()}:")
    assert f":x:{os.getgid()}:{me.pw_name}\n" in account.groups


@pytest.mark.parametrize("home", ["/", "", "home"])
def test_a_home_that_no_container_can_have_is_an_error(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.struct_passwd(("me", "x", os.getuid(), os.getgid(), "", home, "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    with pytest.raises(ContainerError, match="where no container can have one"):
        Account.of_this_process()


def test_a_user_without_a_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(ContainerError, match="no user with the id 4000000000"):
        Account.of_this_process()
