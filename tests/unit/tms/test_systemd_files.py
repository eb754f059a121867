"""The files of containers/systemd: what they name exists, and the scripts say how they are called."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from ewms.settings import variables
from ewms.testing.pool.data import containers_dir
from ewms.tms.settings import Settings

SYSTEMD = containers_dir() / "systemd"
SCRIPTS = ("install.sh", "update_tms_image_symlink.sh")
REQUIRED = {"EWMS_ADDRESS", "EWMS_TOKEN_URL", "EWMS_CLIENT_ID", "EWMS_CLIENT_SECRET", "JOB_EVENT_LOG_DIR"}
APPTAINERS = {"APPTAINER_BIND"}


def run(script: str, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([SYSTEMD / script, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_the_skeletons_settings_exist_and_those_that_are_required_stand_in_it() -> None:
    text = (SYSTEMD / "envfile.skeleton").read_text()
    set_, shown = (set(re.findall(rf"^{mark}([A-Z_]+)=", text, re.MULTILINE)) for mark in ("", "#"))
    assert set_ == REQUIRED
    assert shown <= {variable.name for _, variable in variables(Settings)} | APPTAINERS
    assert re.findall(r"^[A-Z_]+=.+", text, re.MULTILINE) == [], "nobody's values"


def test_each_required_setting_is_explained() -> None:
    above = ""
    for line in (SYSTEMD / "envfile.skeleton").read_text().splitlines():
        if line.startswith("EWMS_CLIENT_SECRET="):
            continue  # explained with the client
        assert not re.match(r"[A-Z_]+=", line) or above.startswith("# "), line
        above = line


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_a_script_says_how_it_is_called(script: str, word: str, tmp_path: Path) -> None:
    done = run(script, word, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "Exit status:" in done.stdout
    source = (SYSTEMD / script).read_text()
    used = set(re.findall(r"\bfail (\d+) ", source))
    explained = set(re.findall(r"\b(\d+)\b", done.stdout.partition("Exit status:")[2]))
    assert used <= explained
    options = set(re.findall(r"^ +(?:-h \| )?(--[a-z-]+)\)", source, re.MULTILINE))
    assert len(options) > 3
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("install.sh", ()),
        ("install.sh", ("--nonsense", "prod")),
        ("install.sh", ("prod", "dev")),
        ("install.sh", ("../prod",)),
        ("install.sh", ("--owner",)),
        ("update_tms_image_symlink.sh", ()),
        ("update_tms_image_symlink.sh", ("--nonsense", "v1")),
        ("update_tms_image_symlink.sh", ("v1", "v2")),
        ("update_tms_image_symlink.sh", ("../v1",)),
        ("update_tms_image_symlink.sh", ("--watch", "soon", "v1")),
        ("update_tms_image_symlink.sh", ("--image-base",)),
        ("update_tms_image_symlink.sh", ("v1",)),  # this is no instance's directory
    ],
)
def test_a_wrong_call_is_refused_with_2(script: str, words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(script, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", sorted(SYSTEMD.glob("ewms-tms*")), ids=lambda path: path.name)
def test_the_units_and_drop_ins_say_nothing_twice(unit: Path) -> None:
    # systemd lets a later line win; a person reads the first one.
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    assert parser.has_section("Unit")
