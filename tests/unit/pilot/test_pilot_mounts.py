"""Which mounts are safe, one row for each rule."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.containers.base import Mount, MountRefused
from ewms.pilot.containers.mounts import NEVER_FROM, ONLY_READ, checked, problems


def mount(source: str, target: str = "/t", *, ro: bool = False) -> Mount:
    return Mount(Path(source), Path(target), ro)


@pytest.mark.parametrize("place", NEVER_FROM)
@pytest.mark.parametrize("below", ["", "/deeper/still"])
@pytest.mark.parametrize("ro", [True, False])
def test_never_from_the_host(place: str, below: str, ro: bool) -> None:
    assert list(problems([mount(place + below, ro=ro)]))


@pytest.mark.parametrize("place", ONLY_READ)
def test_only_read(place: str) -> None:
    assert not list(problems([mount(place, ro=True)]))
    assert list(problems([mount(place)]))
    assert list(problems([mount("/data", place)]))
    assert list(problems([mount("/data", f"{place}/x")]))
    assert not list(problems([mount("/data", place, ro=True)]))


@pytest.mark.parametrize("target", ["/proc", "/dev/shm", "/sys/x"])
def test_no_writable_mount_over_the_kernels_own(target: str) -> None:
    assert list(problems([mount("/data", target)]))


@pytest.mark.parametrize("target", ["relative", "/", "/a/../etc"])
def test_targets_that_are_none(target: str) -> None:
    assert list(problems([mount("/data", target, ro=True)]))


def test_the_whole_host_is_refused() -> None:
    assert list(problems([mount("/", ro=True)]))
    assert list(problems([mount("//", ro=True)]))


@pytest.mark.parametrize("place", ["//proc", "//etc", "//usr/lib", "//dev/shm"])
def test_two_slashes_at_the_beginning_are_one(place: str) -> None:
    """For POSIX, and pathlib, they may be something else; for Linux they are not."""
    assert list(problems([mount(place)]))
    assert list(problems([mount("/data", place)]))
    assert len(list(problems([mount("/a", "/t"), mount("/b", "//t")]))) == 1


def test_a_name_that_only_begins_like_a_place_is_fine() -> None:
    assert not list(problems([mount("/etcetera"), mount("/runs", "/u"), mount("/libdata", "/v")]))


def test_two_mounts_with_one_target() -> None:
    found = list(problems([mount("/a"), mount("/b"), mount("/c", "/t/")]))
    assert len(found) == 2


def test_links_are_followed_before_judging(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/proc/self")
    with pytest.raises(MountRefused, match="/proc of the host may not be mounted"):
        checked([Mount(tmp_path / "innocent", Path("/t"), read_only=True)])
    (tmp_path / "real").mkdir()
    (tmp_path / "fine").symlink_to("real")
    assert checked([Mount(tmp_path / "fine", Path("/t"))]) == (Mount((tmp_path / "real").resolve(), Path("/t")),)


def test_what_is_not_there_or_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for source in (tmp_path / "nothing", tmp_path / "file", Path("relative")):
        with pytest.raises(MountRefused, match="cannot mount"):
            checked([Mount(source, Path("/t"))])


@given(
    st.sampled_from(NEVER_FROM),
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
            lambda p: p not in (".", "..")
        ),
        max_size=3,
    ),
)
def test_nothing_below_a_forbidden_place_passes(place: str, parts: list[str]) -> None:
    assert list(problems([mount(str(PurePosixPath(place, *parts)), ro=True)]))
