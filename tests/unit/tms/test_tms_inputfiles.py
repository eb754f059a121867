"""Input files of an order, with their links followed."""

from pathlib import Path

import pytest

from ewms.tms.errors import OrderRefused
from ewms.tms.inputfiles import check_input_files


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    envfile = tmp_path / "jobs" / "ewms-taskforce-TF-2" / "ewms_htcondor_envfile.sh"
    envfile.parent.mkdir(parents=True)
    envfile.write_text("export EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN=x\n")
    return tmp_path / "jobs"


def test_a_link_into_the_job_directory_is_refused(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "direct").symlink_to(job_dir / "ewms-taskforce-TF-2" / "ewms_htcondor_envfile.sh")
    (tmp_path / "over").symlink_to(job_dir)
    for path in ("direct", "over/ewms-taskforce-TF-2/ewms_htcondor_envfile.sh", "over"):
        with pytest.raises(OrderRefused, match="leads into the TMS's own job directory"):
            check_input_files([str(tmp_path / path)], job_dir)


def test_a_job_directory_that_is_a_link_is_the_same_directory(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "named").symlink_to(job_dir)
    with pytest.raises(OrderRefused):
        check_input_files([str(job_dir / "ewms-taskforce-TF-2")], tmp_path / "named")


def test_all_else_is_htcondors_to_judge(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "data").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    paths = [str(tmp_path / name) for name in ("loop", "data", "link", "missing")]
    check_input_files([*paths, "https://example.org/x", "osdf:///a"], job_dir)
