import gzip
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ewms.tms.directory_archive import pack_directory
from ewms.tms.log_archive import pack_log
from ewms.tms.packing import Disk, SourceChanged, drop

NAME = "2026-11-21.tms.jel"


def quiet(_size: int) -> None:
    pass


def fingerprint(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written, not when it is read."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@pytest.fixture
def day_log(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(b"first\n...\n" * 300_000)
    path.chmod(0o640)
    os.utime(path, (1_000_000, 1_000_000))
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "ewms-taskforce-TF-1"
    (path / "cluster-7").mkdir(parents=True)
    (path / "cluster-7" / "0.out").write_bytes(b"o" * 3_000_000)
    (path / "cluster-7" / "0.err").write_text("")
    (path / "link").symlink_to("/nowhere")
    os.mkfifo(path / "pipe")
    (path / "ewms_htcondor_envfile.sh").write_text("export TOKEN='SECRET'\n")
    (path / ".ewms_htcondor_envfile.sh.new").write_text("export TOKEN='SECRET'\n")
    return path


def unzipped(archive: Path) -> bytes:
    with gzip.open(archive) as file:
        return file.read()


def archive_of(source: Path) -> Path:
    return source.with_name(source.name + ".gz")


def test_a_log_archive_reads_as_the_log_and_the_log_stays_until_it_is_dropped(day_log: Path) -> None:
    text = day_log.read_bytes()
    packed = pack_log(day_log, Disk(), quiet)
    assert day_log.exists()
    assert unzipped(packed.archive) == text
    assert packed.archive == archive_of(day_log)
    assert packed.archive.stat().st_mode & 0o777 == 0o640
    assert packed.archive.stat().st_size < len(text) / 10
    drop(packed, Disk())
    assert [path.name for path in day_log.parent.iterdir()] == [NAME + ".gz"]


def test_todays_tools_read_a_log_archive(day_log: Path) -> None:
    text = day_log.read_bytes()
    drop(pack_log(day_log, Disk(), quiet), Disk())
    archive = archive_of(day_log)
    assert subprocess.run(["gzip", "-dc", archive], check=True, capture_output=True).stdout == text
    assert subprocess.run(["gzip", "-tv", archive], check=True, capture_output=True).returncode == 0
    subprocess.run(["gzip", "-dN", archive], check=True)
    assert day_log.stat().st_mtime == 1_000_000


def test_a_log_that_was_created_again_is_appended(day_log: Path) -> None:
    first = day_log.read_bytes()
    for text in (b"second\n...\n", b"", b"third\n...\n"):
        drop(pack_log(day_log, Disk(), quiet), Disk())
        day_log.write_bytes(text)
    drop(pack_log(day_log, Disk(), quiet), Disk())
    assert unzipped(archive_of(day_log)) == first + b"second\n...\nthird\n...\n"


def test_a_log_equal_to_an_earlier_one_but_the_last_is_not_lost(day_log: Path) -> None:
    for text in (b"a\n", b"b\n", b"a\n"):
        day_log.write_bytes(text)
        drop(pack_log(day_log, Disk(), quiet), Disk())
    assert unzipped(archive_of(day_log)) == b"a\nb\na\n"


def test_a_log_that_a_crash_left_beside_its_archive_is_not_doubled(day_log: Path) -> None:
    text = day_log.read_bytes()
    pack_log(day_log, Disk(), quiet)  # crash before drop
    before = fingerprint(archive_of(day_log))
    drop(pack_log(day_log, Disk(), quiet), Disk())
    assert fingerprint(archive_of(day_log)) == before
    assert not day_log.exists()
    assert unzipped(archive_of(day_log)) == text


def test_and_when_it_grew_since_only_the_rest_is_appended(day_log: Path) -> None:
    for more in (b"more\n", b"still more\n"):
        pack_log(day_log, Disk(), quiet)  # crash before drop
        with day_log.open("ab") as file:
            file.write(more)
    text = day_log.read_bytes()
    drop(pack_log(day_log, Disk(), quiet), Disk())
    assert unzipped(archive_of(day_log)) == text


def test_an_archive_of_todays_tools_is_appended(day_log: Path) -> None:
    subprocess.run(["gzip", day_log], check=True)
    day_log.write_bytes(b"again\n")
    drop(pack_log(day_log, Disk(), quiet), Disk())
    assert unzipped(archive_of(day_log)).endswith(b"first\n...\nagain\n")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: b"x" + data[1:]])
def test_a_half_archive_of_another_tool_is_set_aside(day_log: Path, damage: Callable[[bytes], bytes]) -> None:
    archive_of(day_log).write_bytes(damage(gzip.compress(os.urandom(1000))))
    drop(pack_log(day_log, Disk(), quiet), Disk())
    assert unzipped(archive_of(day_log))[:5] == b"first"
    # An empty file is a valid archive of nothing.
    aside = archive_of(day_log).with_name(NAME + ".gz.damaged")
    assert aside.exists() is (damage(b"ab") != b"")


def test_a_log_that_is_written_to_meanwhile_stays(day_log: Path) -> None:
    with day_log.open("ab") as writer:

        def write(_size: int) -> None:
            writer.write(b"event\n...\n")
            writer.flush()

        with pytest.raises(SourceChanged):
            pack_log(day_log, Disk(), write)
        assert [path.name for path in day_log.parent.iterdir()] == [NAME]
        packed = pack_log(day_log, Disk(), quiet)
        write(0)
        with pytest.raises(SourceChanged):
            drop(packed, Disk())
        assert day_log.exists()


def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive) as tar:
        return {member.name: member for member in tar}


def test_a_directory_becomes_a_private_tar_without_the_envfile(directory: Path) -> None:
    packed = pack_directory(directory, Disk(), quiet)
    assert packed.archive.name == "ewms-taskforce-TF-1.tar.gz"
    assert packed.archive.stat().st_mode & 0o777 == 0o600
    found = members(packed.archive)
    top = "ewms-taskforce-TF-1"
    assert list(found) == [
        top, f"{top}/cluster-7", f"{top}/cluster-7/0.err", f"{top}/cluster-7/0.out", f"{top}/link", f"{top}/pipe"
    ]  # fmt: skip
    assert found[f"{top}/link"].linkname == "/nowhere"
    assert b"SECRET" not in unzipped(packed.archive)
    with tarfile.open(packed.archive) as tar:
        file = tar.extractfile(f"{top}/cluster-7/0.out")
        assert file is not None
        assert file.read() == b"o" * 3_000_000
    drop(packed, Disk())
    assert [path.name for path in directory.parent.iterdir()] == [packed.archive.name]


def test_a_directory_that_was_created_again_keeps_what_its_archive_has(directory: Path) -> None:
    with tarfile.open(directory.with_name(directory.name + ".tar.gz"), "w:gz") as todays:
        todays.add(directory, directory.name)  # as today's TMS does, envfile and all
    for path in (directory / "cluster-7" / "0.out", directory / "link", directory / "cluster-7" / "0.err"):
        path.unlink()
    (directory / "cluster-7" / "1.out").write_text("new")
    packed = pack_directory(directory, Disk(), quiet)
    names = {name.rpartition("/")[2] for name in members(packed.archive)}
    assert names == {"ewms-taskforce-TF-1", "cluster-7", "0.out", "0.err", "1.out", "link", "pipe"}
    assert b"SECRET" not in unzipped(packed.archive)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_tar_with_a_damaged_byte_is_set_aside(directory: Path, size: int) -> None:
    (directory / "cluster-7" / "0.out").write_bytes(b"o" * size)
    archive = pack_directory(directory, Disk(), quiet).archive
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1  # in the checksum: all the rest can be read
    archive.write_bytes(content)
    pack_directory(directory, Disk(), quiet)
    assert archive.with_name(archive.name + ".damaged").read_bytes() == content
    with tarfile.open(archive) as tar:
        assert f"{directory.name}/cluster-7/0.out" in tar.getnames()


def test_a_half_tar_is_set_aside(directory: Path) -> None:
    archive = pack_directory(directory, Disk(), quiet).archive
    archive.write_bytes(archive.read_bytes()[:-100])
    pack_directory(directory, Disk(), quiet)
    assert f"{directory.name}/cluster-7/0.out" in members(archive)
    assert archive.with_name(archive.name + ".damaged").exists()


def test_a_directory_that_is_used_meanwhile_stays(directory: Path) -> None:
    def write(_size: int) -> None:
        (directory / "cluster-7" / "2.out").write_text("late")

    with pytest.raises(SourceChanged):
        pack_directory(directory, Disk(), write)
    packed = pack_directory(directory, Disk(), quiet)
    (directory / "3.out").write_text("later")
    with pytest.raises(SourceChanged):
        drop(packed, Disk())
    assert (directory / "3.out").exists()


def test_a_crash_while_a_directory_is_removed_leaves_nothing_that_passes_for_it(directory: Path) -> None:
    class Crashing(Disk):
        def remove(self, path: Path) -> None:
            (path / "cluster-7" / "0.out").unlink()
            raise KeyboardInterrupt

    packed = pack_directory(directory, Disk(), quiet)
    with pytest.raises(KeyboardInterrupt):
        drop(packed, Crashing())
    assert sorted(path.name for path in directory.parent.iterdir()) == [
        ".ewms-taskforce-TF-1.archived",
        "ewms-taskforce-TF-1.tar.gz",
    ]
