import os
import signal
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from ewms.tms.errors import SettingWrong
from ewms.tms.sitefile import SiteFile, SiteFileError, parse, read, reload_on_hangup


def test_a_site_a_line() -> None:
    text = (
        '# bad ones\n\n  GLIDEIN_Site = San Diego, CA\nosg_site_name="SU-ITS"\r\n'
        'Machine = a.example.org\nGLIDEIN_Site = San Diego, CA\nGLIDEIN_Site = Lot\'s "A" = B\n'
    )
    assert parse(text) == (
        ("GLIDEIN_Site", "San Diego, CA"),
        ("OSG_SITE_NAME", "SU-ITS"),
        ("Machine", "a.example.org"),
        ("GLIDEIN_Site", 'Lot\'s "A" = B'),
    )
    assert parse("") == ()


@pytest.mark.parametrize(
    "line",
    ["SDSC-PRP", "GLIDEIN_Site =", "GLIDEIN_Site", "Site = x", "= x", 'GLIDEIN_Site = ""x', "GLIDEIN_Site = $(X)"],
)
def test_wrong_lines_are_told_each_with_its_number(line: str) -> None:
    if line == 'GLIDEIN_Site = ""x':  # quotes are part of a name unless they enclose it
        assert parse(line) == (("GLIDEIN_Site", '""x'),)
        return
    with pytest.raises(SiteFileError) as caught:
        parse(f"# fine\n{line}\nGLIDEIN_Site = fine\n{line}\n")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["line 2", "line 4"]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("GLIDEIN_Site = Universität\n".encode("latin-1"))
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    for name, reason in (
        ("missing", "No such file"),
        (".", "Is a directory"),
        ("latin", "not UTF-8"),
        ("large", "larger than"),
    ):
        with pytest.raises(SiteFileError, match=reason):
            read(tmp_path / name)


async def test_a_bad_file_stops_the_start_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "sites"
    path.write_text("nonsense\n")
    with pytest.raises(SettingWrong, match=r"TMS_EXCLUDED_SITES_FILE: .*/sites: line 1: 'nonsense' is not ATTRIBUTE"):
        await SiteFile(path).load()


async def test_a_hangup_reads_it_again_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sites"
    path.write_text("GLIDEIN_Site = A\n")
    file = SiteFile(path)
    await file.load()
    async with trio.open_nursery() as nursery:
        await nursery.start(reload_on_hangup, file)
        with capture_logs() as said:
            for text, expected in (
                ("GLIDEIN_Site = B\n", ("B",)),
                ("GLIDEIN_Site = C\nD\n", ("B",)),
                ("GLIDEIN_Site = C\n", ("C",)),
            ):
                path.write_text(text)
                seen = len(said)
                os.kill(os.getpid(), signal.SIGHUP)
                with trio.fail_after(60):
                    while len(said) == seen:  # noqa: ASYNC110  the log is all that tells
                        await trio.sleep(0.001)
                assert tuple(name for _, name in file.avoided) == expected
        nursery.cancel_scope.cancel()
    assert [line["log_level"] for line in said] == ["info", "error", "info"]
    assert said[0]["added"] == ["GLIDEIN_Site = B"]
    assert said[0]["gone"] == ["GLIDEIN_Site = A"]
    assert "line 2: 'D'" in said[1]["error"]


async def test_without_a_file_a_hangup_is_harmless() -> None:
    file = SiteFile()
    await file.load()
    await file.reload()
    assert file.avoided == ()
