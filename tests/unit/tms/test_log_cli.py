"""`ewms log` as an operator uses it."""

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ewms.cli import main
from ewms.tms.board import TaskforceReport

LONG_TEXT = "a long story " * 20
LONG = {f"HELD: {LONG_TEXT}": {"null": 1}}
JEL = Path(__file__).parents[2] / "data" / "jel"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


def test_json_is_one_object() -> None:
    result = run("--json", JEL / "factory-with-notes.jel", JEL / "vacate-rerun.jel")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "taskforces": {
            "TF-1": {
                "cluster_id": 18,
                "compound_statuses": {"REMOVED": {"null": 1}},
                "top_task_errors": {},
                "complete": True,
            },
            "cluster:70": {
                "cluster_id": 70,
                "compound_statuses": {"RUNNING": {"null": 1}},
                "top_task_errors": {},
                "complete": False,
            },
        },
        "events": 20,
        "damaged": 0,
    }


def test_two_clusters_of_one_taskforce_are_both_shown() -> None:
    result = run("--json", JEL / "factory-with-notes.jel", JEL / "submit-notes-attrs.jel")
    assert set(json.loads(result.output)["taskforces"]) == {"TF-1", "cluster:12"}


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_with_and_without_rich(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    result = run(JEL / "factory-with-notes.jel", JEL / "vacate-rerun.jel")
    assert result.exit_code == 0
    assert "TF-1" in result.output
    assert "1 RUNNING" in result.output
    assert "2 taskforces, 20 events, 0 damaged" in result.output


def test_a_compressed_log(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel.gz"
    path.write_bytes(gzip.compress((JEL / "vacate.jel").read_bytes()))
    assert json.loads(run("--json", path).output)["events"] == 11
    path.write_bytes(path.read_bytes()[:-20])
    result = run("--json", path)
    assert result.exit_code == 1
    assert "cannot read" in result.output


def test_why_tells_the_story() -> None:
    result = run("--why", "cluster:147", JEL / "input-missing-hold.jel", JEL / "vacate.jel")
    assert result.exit_code == 0
    assert "1 × held (1 job): the input files could not be transferred: Transfer input files" in result.output
    assert "1 × evicted (1 job): Transfer input files failure" in result.output
    assert "the cluster has ended" in result.output
    assert "vacate" not in result.output


def test_why_takes_the_id_of_a_cluster_whose_taskforce_is_known() -> None:
    by_id, by_uuid = (run("--why", key, JEL / "factory-with-notes.jel") for key in ("cluster:18", "TF-1"))
    assert by_id.exit_code == 0
    assert by_id.output == by_uuid.output
    assert by_id.output.startswith("TF-1, cluster 18\n")


def test_what_is_no_job_event_log_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tms.env"
    path.write_text("EWMS_ADDRESS=https://ewms.example.org\n")
    assert f"{path}: no job's event is in it" in run(path, JEL / "vacate.jel").output
    path.write_text("")
    assert "no job's event" not in run(path).output


def test_a_taskforces_name_is_whole_however_narrow_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    uuid = "TF-6b0261d8-9dae61d8-b05c6ca7-677f9563"
    with monkeypatch.context() as patched:
        patched.setattr("ewms.tms.board.Board.report", lambda *_: TaskforceReport(uuid, 18, LONG, {LONG_TEXT: 1}, 0))
        assert uuid in run(JEL / "factory-with-notes.jel").output


def test_why_of_an_unknown_taskforce() -> None:
    result = run("--why", "TF-none", JEL / "vacate.jel")
    assert result.exit_code == 1
    assert "no taskforce TF-none" in result.output


def test_follow_needs_a_growing_log() -> None:
    result = run("--follow", "--json", JEL / "vacate.jel")
    assert result.exit_code == 2


def log_with_a_black_hole(path: Path, *, procs: int, site: str, status: int, seconds: int) -> None:
    lines = []
    for proc in range(procs):
        head, host = f"(007.{proc:03d}.000) 2026-11-20", f"node1.{site.lower()}.org"
        lines += [
            f"001 {head} 10:00:00Z Job executing on host: <1.2.3.4:5>\n\tSlotName: slot1@{host}",
            f'008 {head} 10:00:01Z HTChirpEWMSPilotSite: "{site}"',
            f'008 {head} 10:00:01Z HTChirpEWMSPilotHost: "{host}"',
            f"005 {head} 10:00:{seconds}Z Job terminated.\n\t(1) Normal termination (return value {status})",
        ]
    text = "".join(f"{line}\n...\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def two_days(tmp_path: Path) -> list[Path]:
    logs = [tmp_path / "2026-11-21.tms.jel", tmp_path / "2026-11-20.tms.jel.gz"]
    log_with_a_black_hole(logs[0], procs=40, site="GOOD", status=0, seconds=50)
    log_with_a_black_hole(logs[1], procs=20, site="HOLE", status=1, seconds=10)
    return logs


def test_sites_as_json(two_days: list[Path]) -> None:
    found = json.loads(run("--sites", "--json", *two_days).output)
    hole = {"runs": 20, "failures": 20, "quick_deaths": 20, "busy_s": 200}
    good = {"runs": 40, "failures": 0, "quick_deaths": 0, "busy_s": 2000}
    assert found["sites"] == {"HOLE": hole, "GOOD": good}
    assert found["hosts"] == {
        "node1.hole.org": {"site": "HOLE", **hole},
        "node1.good.org": {"site": "GOOD", **good},
    }
    assert [(each["kind"], each["name"]) for each in found["suspicious"]] == [("site", "HOLE")]


@pytest.mark.parametrize("rich", [True, False])
def test_sites_as_a_table(two_days: list[Path], rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    output = run("--sites", *two_days).output
    assert "20 (100%)" in output
    assert "node1.hole.org" in output
    assert "node1.good.org" not in output  # nothing failed there
    assert "suspicious: site HOLE: 20 of 20 runs failed, 20 of them within 120 s; elsewhere 0% fail" in output
    output = run("--sites", two_days[0]).output
    assert "no site or host differs much from the others" in output


def test_sites_where_nothing_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel"
    path.touch()
    assert run("--sites", path).output == "no run of a worker has ended\n"


def test_sites_and_why_are_two_questions(two_days: list[Path]) -> None:
    assert run("--sites", "--why", "TF-1", *two_days).exit_code == 2
    assert run("--sites", "--follow", two_days[0]).exit_code == 2
    assert "which is for people" in run("--why", "TF-1", "--json", two_days[0]).output


def test_a_damaged_archive_is_a_readable_error(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel.gz"
    data = bytearray(gzip.compress((JEL / "vacate.jel").read_bytes()))
    data[12:20] = b"\xff" * 8
    path.write_bytes(data)
    result = run(path)
    assert result.exit_code == 1
    assert "cannot read" in result.output


def test_a_log_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    whole = gzip.compress((JEL / "vacate.jel").read_bytes())
    for name, content in (("cut", whole[:-30]), ("damaged", whole[:12] + b"\xff" * 8), ("strange", b"no archive")):
        (tmp_path / f"{name}.gz").write_bytes(content)
    result = run("--json", JEL / "factory-with-notes.jel", *sorted(tmp_path.iterdir()))
    assert result.exit_code == 1
    assert set(json.loads(result.stdout)["taskforces"]) >= {"TF-1"}
    said = result.stderr.splitlines()
    assert said[0] == f"cannot read: the archive is cut off: {tmp_path / 'cut.gz'}"
    assert [line.rpartition(": ")[2] for line in said] == [str(path) for path in sorted(tmp_path.iterdir())]
    assert all("archive is damaged" in line for line in said[1:])


def ewms_log(*arguments: str | Path, **streams: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ewms", "log", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **streams)


@pytest.mark.parametrize("option", [[], ["--json"], ["--sites"], ["--why", "cluster:70"]])
def test_a_reader_that_goes_away_is_no_fault_of_the_log(option: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = ewms_log(*option, JEL / "vacate-rerun.jel", stdout=writer)
    os.close(writer)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "")


def test_a_terminal_that_cannot_show_every_text(tmp_path: Path) -> None:
    log = tmp_path / "2026-11-21.tms.jel"
    log.write_text(
        "001 (007.000.000) 2026-11-21 10:00:00 Job executing on host: <127.0.0.1:1>\n...\n"
        '008 (007.000.000) 2026-11-21 10:00:01 HTChirpEWMSPilotError: "a → b"\n...\n'
    )
    process = ewms_log(log, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert "a \\u2192 b" in shown


def test_output_that_does_not_fit_on_the_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        process = ewms_log("--json", JEL / "vacate-rerun.jel", stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "Error: cannot write: No space left on device\n"


SHOW_ALWAYS = "import ewms.tms.log_cli as log, ewms.cli as cli; log._LONG_READ = 1; cli.main()"


@pytest.mark.parametrize("following", [False, True])
def test_a_long_read_shows_on_a_terminal_how_far_it_is(following: bool) -> None:
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", SHOW_ALWAYS, "log", *["--follow"] * following, str(JEL / "vacate-rerun.jel")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_end, text=True)
    os.close(its_end)
    assert process.stdout is not None
    assert any("1 taskforces" in line for line in process.stdout)
    assert process.poll() is None or not following
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    said = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "reading" in said
    assert "100%" in said


def test_a_failed_job_factory_is_in_the_story_and_in_the_table(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel"
    path.write_text(
        "035 (007.-01.000) 2026-11-21 10:00:00 Cluster submitted from host: <127.0.0.1:1>\n"
        "    EWMSTaskforceUUID=TF-1\n...\n"
        "037 (007.-01.000) 2026-11-21 10:00:05 Job Materialization Paused\n\tno such file\n\tPauseCode 1\n...\n"
    )
    told = run("--why", "TF-1", path).output
    assert "2026-11-21 10:00:05Z  1 × Job Materialization Paused: no such file PauseCode 1\n" in told
    assert told.endswith("now:\n  no further workers: no such file\n  the cluster lives\n")
    assert "no further workers: no such file" in run(path).output


def test_ctrl_c_ends_following_well_and_reading_as_aborted(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-21.tms.jel"
    path.write_bytes((JEL / "vacate-rerun.jel").read_bytes())
    following = ewms_log("--follow", path, stdout=subprocess.PIPE)
    assert following.stdout is not None
    while "1 taskforces" not in following.stdout.readline():
        pass
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=60)[1] == ""
    assert following.returncode == 0
    hanging = tmp_path / "2026-11-22.tms.jel"
    os.mkfifo(hanging)
    reading = ewms_log("--json", hanging, stdout=subprocess.PIPE)
    writer = hanging.open("wb")  # returns when it is read
    reading.send_signal(signal.SIGINT)
    assert reading.communicate(timeout=60) == ("", "\nAborted!\n")  # Click goes to a new line
    assert reading.returncode == 1
    writer.close()
