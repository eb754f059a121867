"""Converted images go when no pilot has used them for long, and never one that a pilot uses or makes."""

import os
import time
from pathlib import Path

import pytest

from ewms.pilot.containers.imagestore import About, ImageStore, Keeping, key_of
from ewms.pilot.directories import tree_size

DAY = 86400.0
FOR_EVER = Keeping(unused_s=1000 * DAY, total_bytes=10**12)
A_WEEK = Keeping(unused_s=7 * DAY, total_bytes=10**12)


def pilot(root: Path, keeping: Keeping = FOR_EVER) -> ImageStore:
    """The store as one pilot has it; each open file has locks of its own, so two are two pilots."""
    return ImageStore(root=root / "images", keeping=keeping)


async def made(store: ImageStore, source: str, *, size: int = 1) -> Path:
    """What a pilot does that converts an image."""
    async with store.locked(source) as place:
        assert not place.exists()
        (place / "usr").mkdir(parents=True)
        (place / "usr" / "program").write_bytes(b"x" * size)
        store.write_about(place, About(source=source, bytes=size))
        store.use(place)
    return place


def used_before(place: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(place.with_suffix(".lock"), (when, when))


def there(root: Path) -> list[str]:
    """What is in the store, locks left out."""
    return sorted(path.name for path in (root / "images").iterdir() if path.suffix != ".lock")


async def test_what_nobody_used_for_long_goes_whole(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    old, new = await made(store, "old"), await made(store, "new")
    store.close()
    used_before(old, 8 * DAY)
    used_before(new, 6 * DAY)
    await pilot(tmp_path, A_WEEK).prune()
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted([new.name, f"{new.name}.lock"])


async def test_what_a_pilot_uses_stays_however_long_it_runs(tmp_path: Path) -> None:
    user = pilot(tmp_path)
    place = await made(user, "image")
    used_before(place, 100 * DAY)
    other = pilot(tmp_path, A_WEEK)
    await other.prune()
    assert place.is_dir()
    user.close()  # which counts as a use
    await other.prune()
    assert place.is_dir()
    used_before(place, 100 * DAY)
    await other.prune()
    assert there(tmp_path) == []


async def test_two_users_both_count(tmp_path: Path) -> None:
    one, two = pilot(tmp_path), pilot(tmp_path)
    place = await made(one, "image")
    async with two.locked("image") as same:
        two.use(same)
        two.use(same)  # task and init container may have one image
    one.close()
    used_before(place, 100 * DAY)
    await pilot(tmp_path, A_WEEK).prune()
    assert place.is_dir()


async def test_with_too_many_bytes_the_longest_unused_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    user, store = pilot(tmp_path), pilot(tmp_path)
    in_use = await made(user, "in use", size=500)
    used_before(in_use, 50)
    places = [await made(store, f"image {number}", size=100) for number in range(4)]
    store.close()
    for number, place in enumerate(places):
        used_before(place, 40 - number)
    await pilot(tmp_path, Keeping(unused_s=DAY, total_bytes=750)).prune()
    assert there(tmp_path) == sorted(place.name for place in (in_use, *places[2:]))


async def test_an_image_without_a_note_is_measured(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    place = await made(store, "image", size=100_000)
    store.close()
    place.with_suffix(".lock").write_text("")
    assert store.read_about(place) is None
    await pilot(tmp_path, Keeping(unused_s=DAY, total_bytes=tree_size(place))).prune()
    assert place.is_dir()
    await pilot(tmp_path, Keeping(unused_s=DAY, total_bytes=tree_size(place) - 1)).prune()
    assert there(tmp_path) == []


async def test_a_pilot_does_not_remove_what_another_one_makes(tmp_path: Path) -> None:
    maker = pilot(tmp_path)
    async with maker.locked("image") as place:
        place.with_suffix(".making-1").mkdir()
        await pilot(tmp_path, Keeping(unused_s=0, total_bytes=0)).prune()
        assert there(tmp_path) == [f"{place.name}.making-1"]


@pytest.mark.parametrize("half", ["making-1", "going-1"])
async def test_what_a_killed_pilot_left_half_done_goes(tmp_path: Path, half: str) -> None:
    store = pilot(tmp_path)
    place = await made(store, "image")
    store.close()
    place.rename(place.with_suffix(f".{half}"))
    await pilot(tmp_path).prune()
    assert there(tmp_path) == []


async def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path: Path) -> None:
    """Who waited for it must not go on beside the one who has the new file."""
    store = pilot(tmp_path)
    async with store.locked("image") as place:
        lock = place.with_suffix(".lock")
        removed = os.open(lock, os.O_RDWR)
        lock.unlink()
        async with pilot(tmp_path).locked("image"):
            assert not os.path.samestat(os.fstat(removed), lock.stat())
        os.close(removed)


@pytest.mark.parametrize("mode", [0o770, 0o707])
async def test_a_directory_that_others_can_write_to_is_not_used(tmp_path: Path, mode: int) -> None:
    """Its place is open to everybody, and its name known: what is in it could be anybody's."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images").chmod(mode)
    with pytest.raises(PermissionError, match="others can write there"):
        await made(pilot(tmp_path), "image")


@pytest.mark.parametrize("is_link", [False, True])
async def test_a_directory_that_somebody_else_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    place = tmp_path / ("theirs" if is_link else "images")
    place.mkdir(mode=0o700)
    if is_link:
        (tmp_path / "images").symlink_to(place)
    monkeypatch.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="have made it"):
        await made(pilot(tmp_path), "image")


async def test_an_image_whose_lock_a_cleaner_took_is_as_if_used_now(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    place = await made(store, "image")
    store.close()
    place.with_suffix(".lock").unlink()
    keeping = Keeping(unused_s=7 * DAY, total_bytes=10**12)
    await pilot(tmp_path, keeping).prune()
    assert place.is_dir()
    used_before(place, 8 * DAY)
    await pilot(tmp_path, keeping).prune()
    assert there(tmp_path) == []


async def test_what_an_image_was_made_from_is_known_later(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    about = About(source="docker://x:latest", digest="sha256:1", converted=1.0, bytes=7)
    async with store.locked(about.source) as place:
        store.write_about(place, about)
    assert pilot(tmp_path).read_about(place) == about


def test_a_file_that_was_replaced_is_another_image(tmp_path: Path) -> None:
    sif = tmp_path / "image.sif"
    sif.write_text("one")
    first = key_of(str(sif))
    assert key_of(str(sif)) == first
    sif.write_text("another")
    assert key_of(str(sif)) != first
    assert len({key_of("docker://x:1"), key_of("docker://x:2"), first}) == 3
