"""Input files of an order as they are on disk: links followed, directories entered."""

import os
import pwd
from pathlib import Path

import pytest

from ewms.tms import inputfiles
from ewms.tms.errors import OrderRefused
from ewms.tms.inputfiles import check_input_files
from ewms.tms.inputnames import Closed


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    envfile = tmp_path / "ap" / "jobs" / "ewms-taskforce-TF-2" / "ewms_htcondor_envfile.sh"
    envfile.parent.mkdir(parents=True)
    envfile.write_text("export EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN=x\n")
    return tmp_path / "ap" / "jobs"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep" / "er").mkdir(parents=True)
    return tmp_path / "data"


def test_a_link_into_the_job_directory_is_refused(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "direct").symlink_to(job_dir / "ewms-taskforce-TF-2" / "ewms_htcondor_envfile.sh")
    (tmp_path / "over").symlink_to(job_dir)
    for path in ("direct", "over/ewms-taskforce-TF-2/ewms_htcondor_envfile.sh", "over", "over/"):
        with pytest.raises(OrderRefused, match="leads into the TMS's own job directory"):
            check_input_files([f"{tmp_path}/{path}"], job_dir)


def test_a_directory_that_holds_the_job_directory_is_refused(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "parent").symlink_to(job_dir.parent)
    (tmp_path / "again").symlink_to("parent")
    (tmp_path / "root").symlink_to("/")
    for path in (tmp_path, job_dir.parent, tmp_path / "parent", tmp_path / "again", tmp_path / "root", "/"):
        with pytest.raises(OrderRefused, match="leads to what holds the TMS's own job directory"):
            check_input_files([f"{path}", f"{path}/"], job_dir)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("ap/jobs/ewms-taskforce-TF-2/ewms_htcondor_envfile.sh", "leads into the TMS's own job directory by .*er/link"),
        ("ap/jobs", "leads into the TMS's own job directory by .*er/link"),
        ("ap", "leads to what holds the TMS's own job directory by .*er/link"),
        ("", "leads to what holds the TMS's own job directory by .*er/link"),
        ("other/second", "leads into the TMS's own job directory by .*other/second/third"),
    ],
)
def test_a_directory_with_a_link_to_it_is_refused(
    tmp_path: Path, job_dir: Path, data: Path, target: str, reason: str
) -> None:
    (tmp_path / "other" / "second").mkdir(parents=True)
    (tmp_path / "other" / "second" / "third").symlink_to(job_dir / "x")
    (data / "deep" / "er" / "link").symlink_to(tmp_path / target)
    for path in (f"{data}", f"{data}/", f"{data}/deep"):
        with pytest.raises(OrderRefused, match=reason):
            check_input_files([path], job_dir)


def test_a_link_to_or_through_proc_is_refused(tmp_path: Path, job_dir: Path) -> None:
    """What HTCondor finds there is another than what we find: `self` is whoever looks."""
    (tmp_path / "here").write_text("x")
    for target, reason in (
        (f"/proc/{os.getpid()}/environ", "leads into /proc"),
        (f"/proc/self/root{tmp_path}/here", "leads through /proc"),
        ("/proc/self/cwd", "leads through /proc"),
        (f"/proc/{os.getpid()}/cwd/../x", "leads through /proc"),
        ("/dev/fd/0", "leads (through|into) /(dev|proc)"),
    ):
        link = tmp_path / "link"
        link.symlink_to(target)
        (tmp_path / "second").symlink_to("link")
        for path in (link, tmp_path / "second", Path(target)):
            with pytest.raises(OrderRefused, match=reason):
                check_input_files([str(path)], job_dir)
        link.unlink()
        (tmp_path / "second").unlink()


def test_a_job_directory_that_is_a_link_is_the_same_directory(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "named").symlink_to(job_dir)
    for path in (job_dir / "ewms-taskforce-TF-2", job_dir.parent):
        with pytest.raises(OrderRefused):
            check_input_files([str(path)], tmp_path / "named")


def test_the_same_place_by_another_name_is_refused(tmp_path: Path, job_dir: Path) -> None:
    """As with a directory that is mounted twice, which takes root to do."""
    (tmp_path / "place").write_text("x")
    (tmp_path / "data").mkdir()
    os.link(tmp_path / "place", tmp_path / "data" / "alias")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "alias")
    for path, how in (("data/alias", "leads into"), ("link", "leads into"), ("data", "holds")):
        with pytest.raises(OrderRefused, match=f"{how} a secret"):
            check_input_files([f"{tmp_path}/{path}"], job_dir, [Closed(f"{tmp_path}/place", "a secret")])


def test_where_htcondor_keeps_jobs_is_closed(tmp_path: Path, job_dir: Path) -> None:
    (tmp_path / "condor" / "dir_1").mkdir(parents=True)
    (tmp_path / "condor" / "data").mkdir()
    (tmp_path / "condor" / "spool").mkdir()
    condor = tmp_path / "condor"
    jobs = [Closed(f"{condor}", "jobs", ("dir_",)), Closed(f"{condor}/spool", "jobs"), Closed("/nonexistent", "jobs")]
    for path, reason in (("dir_1/x", "into"), ("dir_2", "into"), ("", "to what holds"), ("spool/1", "into")):
        with pytest.raises(OrderRefused, match=f"leads {reason} jobs"):
            check_input_files([str(condor / path)], job_dir, jobs)
    check_input_files([str(condor / "data")], job_dir, jobs)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of our user."""
    (tmp_path / "home" / "me").mkdir(parents=True)
    me = pwd.getpwuid(os.geteuid())
    own = pwd.struct_passwd((*me[:5], str(tmp_path / "home" / "me"), me[6]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: own)
    return tmp_path / "home" / "me"


def test_what_is_hidden_in_the_home_of_our_user_is_closed(tmp_path: Path, job_dir: Path, home: Path) -> None:
    (home / ".condor" / "tokens.d").mkdir(parents=True)
    (home / ".secret").write_text("x")
    (home / "open").mkdir()
    (tmp_path / "link").symlink_to(home / ".condor")
    os.link(home / ".secret", home / "open" / "again")
    for path in (
        home.parent,
        home,
        home / ".condor" / "tokens.d",
        home / ".not-there",
        tmp_path / "link",
        home / "open",
    ):
        with pytest.raises(OrderRefused, match="keeps hidden in its home"):
            check_input_files([str(path)], job_dir)


def test_what_is_not_hidden_there_is_open(tmp_path: Path, job_dir: Path, home: Path) -> None:
    (tmp_path / "data").mkdir()
    (home / "open" / ".hidden").mkdir(parents=True)
    (home / ".cache").symlink_to(tmp_path / "data")
    check_input_files([str(home / "open"), str(tmp_path / "data")], job_dir)


def test_a_home_that_the_image_lacks_is_closed_by_its_name(job_dir: Path, home: Path) -> None:
    home.rmdir()
    for path in (home, home / ".ssh" / "id"):
        with pytest.raises(OrderRefused, match="keeps hidden in its home"):
            check_input_files([str(path)], job_dir)
    check_input_files([str(home / "data")], job_dir)


def test_more_than_anybody_wants_is_refused(job_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputfiles, "LARGEST", 5)
    for name in range(2):
        (data / "deep" / f"{name}").touch()
    check_input_files([str(data)], job_dir)  # deep, er, and two files
    (data / "deep" / "er" / "last").touch()
    check_input_files([str(data)], job_dir)
    (data / "deep" / "er" / "more").touch()
    with pytest.raises(OrderRefused, match="holds too much: more than 5 files"):
        check_input_files([str(data)], job_dir)


def test_all_else_is_htcondors_to_judge(tmp_path: Path, job_dir: Path, data: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (data / "file").write_text("x")
    (tmp_path / "link").symlink_to(data / "file")
    (data / "deep" / "back").symlink_to(data)
    (data / "deep" / "dangling").symlink_to("nowhere")
    (data / "deep" / "loop").symlink_to(tmp_path / "loop")
    paths = [str(tmp_path / name) for name in ("loop", "data", "data/", "link", "missing", "data/file/x")]
    check_input_files([*paths, "https://example.org/x", "osdf:///a"], job_dir)
