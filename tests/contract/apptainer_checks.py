"""What is Apptainer's own, converting images, as a program that runs beside it; used as `container_checks.py` is.

    python apptainer_checks.py IMAGE DIRECTORY SMALL_DISK CHECK

IMAGE is a Debian directory image, SMALL_DISK a file system of its own with a few MB.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import structlog
import trio
from container_checks import PATIENCE, Bench, _alive, _make, _until
from small_images import Registry, open_registry, small_directory

from ewms.pilot.containers import imagestore, open_platform
from ewms.pilot.containers.apptainer import ApptainerPlatform
from ewms.pilot.containers.base import ContainerError, ImageUnusable
from ewms.pilot.settings import PilotSettings, read


def settings(directory: Path) -> PilotSettings:
    return read(
        {
            "EWMS_PILOT_TASK_IMAGE": "unused",
            "EWMS_PILOT_QUEUE_INCOMING": "unused",
            "_EWMS_PILOT_CONTAINER_PLATFORM": "apptainer",
            "_EWMS_PILOT_APPTAINER_BUILD_WORKDIR": str(directory / "work"),
            "_EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT": "false",
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
        }
    )


@attrs.frozen(kw_only=True)
class World(Bench):
    """A bench with images to convert."""

    small: Path
    registry: Registry
    small_disk: Path

    @property
    def images(self) -> Path:
        return self.directory / "work" / f"ewms-pilot-images-{os.getuid()}"

    def converted(self) -> set[str]:
        """The directory images that are there."""
        return {str(path) for path in self.images.iterdir() if path.is_dir()}

    def left(self) -> list[str]:
        """Of conversions that did not come to their end."""
        return [path.name for path in self.images.glob("*.making-*")]

    def sif(self, name: str = "image.sif") -> Path:
        """A SIF file of the small image."""
        target, recipe = self.directory / name, self.directory / "recipe.def"
        recipe.write_text(f'Bootstrap: localimage\nFrom: {self.small}\n%runscript\n    exec "$@"\n')
        argv = ["apptainer", "--silent", "build", str(target), str(recipe)]
        subprocess.run(argv, check=True, env={"PATH": os.environ["PATH"], "HOME": str(self.directory / "home")})
        return target

    async def runs(self, image: str) -> bool:
        """Whether its arguments are run."""
        return await attrs.evolve(self, image=image).run("sh", "-c", "exit 7") == 7


async def a_sif_file_is_converted_once_and_runs(world: World) -> None:
    sif = world.sif()
    image = await world.platform.prepare(str(sif))
    assert await world.runs(image)
    made = _inode(image)
    assert await world.platform.prepare(str(sif)) == image
    os.chdir(world.directory)
    assert await world.platform.prepare("image.sif") == image
    assert _inode(image) == made
    # Another file of that name is another image.
    os.utime(sif, (1, 1))
    assert await world.platform.prepare(str(sif)) not in (image, str(sif))
    assert world.left() == []


async def a_directory_is_used_as_it_is_wherever_it_is_named_from(world: World) -> None:
    os.chdir(world.directory)
    image = await world.platform.prepare("small")
    assert image == str(world.small)
    assert not world.images.exists()


async def an_image_of_a_registry_is_converted_once_and_runs(world: World) -> None:
    image = await world.platform.prepare(world.registry.image)
    assert await world.runs(image)
    await world.platform.check(attrs.evolve(world, image=image).spec("true"))
    assert await world.platform.prepare(world.registry.image) == image
    assert world.registry.pulls == 1
    assert world.left() == []


async def which_version_a_name_stood_for_is_told_each_time(world: World) -> None:
    for _ in range(2):
        with structlog.testing.capture_logs() as logs:
            await world.platform.prepare(world.registry.image)
        (told,) = [entry for entry in logs if entry["event"] == "a converted image is used"]
        assert told["image"] == world.registry.image
        assert told["digest"] == world.registry.digest
        assert told["converted"].startswith("20")


async def an_image_goes_when_no_pilot_has_used_it_for_long(world: World) -> None:
    assert isinstance(world.platform, ApptainerPlatform)
    mine = await world.platform.prepare(str(world.sif()))
    with another_pilot(world) as other:
        image = (await trio.to_thread.run_sync(other.communicate))[0].splitlines()[-1]
    assert world.converted() == {mine, image}
    for path in world.images.glob("*.lock"):
        os.utime(path, (1, 1))
    # This pilot uses the first one; the second one's pilot has ended.
    another = await world.platform.prepare(str(world.sif("another.sif")))
    assert world.converted() == {mine, another}
    assert await world.runs(mine)


async def two_pilots_at_once_convert_once(world: World) -> None:
    world.registry.may_give_layer.clear()
    with another_pilot(world) as one, another_pilot(world) as other:
        await _until(world.registry.asked_for_layer.is_set)
        world.registry.may_give_layer.set()
        said = [(await trio.to_thread.run_sync(each.communicate))[0] for each in (one, other)]
    assert world.registry.pulls == 1
    (image,) = {lines.splitlines()[-1] for lines in said}
    assert await world.runs(image)


async def a_killed_converter_leaves_no_lock_and_no_half_image(world: World) -> None:
    world.registry.may_give_layer.clear()
    with another_pilot(world) as doomed:
        await _until(world.registry.asked_for_layer.is_set)
        assert len(world.left()) == 1
        doomed.send_signal(signal.SIGKILL)
    await _until(lambda: not _alive("--sandbox"))
    assert len(world.left()) == 1
    world.registry.may_give_layer.set()
    with trio.fail_after(PATIENCE):
        assert await world.runs(await world.platform.prepare(world.registry.image))
    assert world.registry.pulls == 2
    assert world.left() == []


async def a_pilot_that_stops_meanwhile_leaves_nothing(world: World) -> None:
    world.registry.may_give_layer.clear()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.platform.prepare, world.registry.image)
            await _until(world.registry.asked_for_layer.is_set)
            nursery.cancel_scope.cancel()
    assert _alive("--sandbox") == []
    assert world.left() == []
    world.registry.may_give_layer.set()
    assert await world.runs(await world.platform.prepare(world.registry.image))


async def a_full_disk_is_said_and_left_as_it_was(world: World) -> None:
    assert isinstance(world.platform, ApptainerPlatform)
    converter = world.platform.converter
    store = attrs.evolve(converter.store, root=world.small_disk / "images")
    platform = attrs.evolve(world.platform, converter=attrs.evolve(converter, store=store))
    before = os.statvfs(world.small_disk).f_bfree
    for image in (str(world.sif()), world.registry.image):
        with _refused(
            f"{image} cannot be converted in .*no space left on device.*BUILD_WORKDIR", ContainerError
        ) as error:
            await platform.prepare(image)
        # It is the machine that is unfit, not the image.
        assert not isinstance(error[0], ImageUnusable)
    assert before - os.statvfs(world.small_disk).f_bfree < 10


async def a_workdir_that_cannot_be_used_is_said(world: World) -> None:
    (world.directory / "work").write_text("a file")
    with _refused("cannot be converted in .*Not a directory", ContainerError):
        await world.platform.prepare(world.registry.image)


async def a_conversion_has_a_limit_and_says_how_far_it_is(world: World) -> None:
    imagestore.LIMIT_S, imagestore.TELL_S = 3.0, 0.2  # type: ignore[misc]
    world.registry.may_give_layer.clear()
    with structlog.testing.capture_logs() as logs, _refused("was not converted within 3 s: INFO:.* OCI image"):
        await world.platform.prepare(world.registry.image)
    told = [entry for entry in logs if entry["event"] == "still converting the image"]
    assert any("OCI image" in entry["said"] for entry in told)
    assert _alive("--sandbox") == []
    assert world.left() == []


async def the_wait_for_another_pilot_has_a_limit(world: World) -> None:
    imagestore.LIMIT_S, imagestore.TELL_S = 1.0, 0.1  # type: ignore[misc]
    world.images.mkdir(parents=True)
    lock = world.images / f"{imagestore.key_of(world.registry.image)}.lock"
    with lock.open("w") as file, structlog.testing.capture_logs() as logs:
        fcntl.flock(file, fcntl.LOCK_EX)
        with _refused("another pilot has not converted the image .* within 1 s"):
            await world.platform.prepare(world.registry.image)
    assert "waiting for another pilot that converts the image" in [entry["event"] for entry in logs]
    assert world.registry.pulls == 0


async def an_image_that_cannot_be_had_is_said(world: World) -> None:
    (world.directory / "not-an-image.sif").write_text("something else")
    for image in (
        f"docker://127.0.0.1:{world.registry.port}/no-such:1",
        str(world.directory / "not-an-image.sif"),
        "/no/such/image.sif",
    ):
        with _refused(re.escape(f"the image {image} cannot be converted (exit code 255): ")):
            await world.platform.prepare(image)
    assert world.left() == []


CHECKS: tuple[Callable[[World], Awaitable[None]], ...] = (
    a_sif_file_is_converted_once_and_runs,
    a_directory_is_used_as_it_is_wherever_it_is_named_from,
    an_image_of_a_registry_is_converted_once_and_runs,
    which_version_a_name_stood_for_is_told_each_time,
    an_image_goes_when_no_pilot_has_used_it_for_long,
    two_pilots_at_once_convert_once,
    a_killed_converter_leaves_no_lock_and_no_half_image,
    a_pilot_that_stops_meanwhile_leaves_nothing,
    a_full_disk_is_said_and_left_as_it_was,
    a_workdir_that_cannot_be_used_is_said,
    a_conversion_has_a_limit_and_says_how_far_it_is,
    the_wait_for_another_pilot_has_a_limit,
    an_image_that_cannot_be_had_is_said,
)


def _inode(path: str) -> int:
    return Path(path).stat().st_ino


@contextmanager
def another_pilot(world: World) -> Iterator["subprocess.Popen[str]"]:
    """Another process that converts the registry's image."""
    argv = [sys.executable, __file__, "convert", str(world.directory), world.registry.image]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        yield process


@contextmanager
def _refused(pattern: str, kind: type[ContainerError] = ImageUnusable) -> Iterator[list[ContainerError]]:
    caught: list[ContainerError] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    said = str(caught[0]) if caught else "nothing was refused"
    assert re.search(pattern, said, re.DOTALL | re.IGNORECASE), said


async def main(image: Path, directory: Path, small_disk: Path, check: Callable[[World], Awaitable[None]]) -> None:
    (directory / "home").mkdir(parents=True)
    small = small_directory(image, directory / "small")
    with open_registry(small, directory / "home") as registry:
        async with open_platform(settings(directory)) as platform:
            world = World(platform, str(image), directory, small=small, registry=registry, small_disk=small_disk)
            _make(world)
            await check(world)


async def convert(directory: Path, image: str) -> None:
    """What another pilot does."""
    async with open_platform(settings(directory)) as platform:
        print(await platform.prepare(image))


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        trio.run(convert, Path(sys.argv[2]), sys.argv[3])
    else:
        trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), globals()[sys.argv[4]])
