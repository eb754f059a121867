"""Names of an order's input files."""

from pathlib import Path

import pytest

from ewms.tms.errors import OrderRefused
from ewms.tms.inputnames import checked_input_files, is_url

JOB_DIR = Path("/scratch/ewms/jobs")
INSIDE = "inside the TMS's own job directory"
HOLDS = "holds the TMS's own job directory"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a,b", "comma"),
        ("relative", "not an absolute path"),
        ("../scratch/ewms/jobs", "not an absolute path"),
        ("~/data", "not an absolute path"),
        ("/x/ewms_htcondor_envfile.sh", "own envfile"),
        ("https://x/ewms_htcondor_envfile.sh", "own envfile"),
        # in the job directory, in all spellings of Linux's
        ("/scratch/ewms/jobs", INSIDE),
        ("/scratch/ewms/jobs/", INSIDE),
        ("/scratch/ewms/jobs/.", INSIDE),
        ("/scratch/ewms/jobs/ewms-taskforce-TF-2/other", INSIDE),
        ("//scratch/ewms/jobs/other", INSIDE),
        ("/scratch//ewms/./jobs/other", INSIDE),
        ("/x/../scratch/ewms/jobs/other", INSIDE),
        # a directory that holds it: all that is below would be sent
        ("/", HOLDS),
        ("//", HOLDS),
        ("/.", HOLDS),
        ("/..", HOLDS),
        ("/scratch", HOLDS),
        ("/scratch/ewms/", HOLDS),
        ("//scratch", HOLDS),
        ("/data/../scratch/ewms", HOLDS),
        ("/scratch/ewms/jobs/..", HOLDS),
        # where `..` leads to, only the disk knows
        ("/data/link/../x", r"'\.\.' in it"),
        ("/data/..", HOLDS),
        # open files and environments of processes, devices, credentials
        ("/proc/self/environ", "inside /proc"),
        ("//proc/1/root/scratch/ewms/jobs/x", "inside /proc"),
        ("/dev/fd/3", "inside /dev"),
        ("/sys/kernel", "inside /sys"),
        ("/run/credentials/ewms-tms@prod.service/envfile", "inside /run"),
        # URLs: those of files, and what HTCondor takes for a path
        ("file:///scratch/ewms/jobs/other", "of whatever machine"),
        ("File:/etc/passwd", "of whatever machine"),
        ("chtc+FILE:///etc/passwd", "of whatever machine"),
        ("a.b-file://localhost/etc/passwd", "of whatever machine"),
        ("/data/x://../../scratch/ewms/jobs/other", INSIDE),
        ("/scratch/ewms/jobs/x://y", INSIDE),
        ("x y://../z", "not an absolute path"),
        ("1x://y", "not an absolute path"),
        ("x://", "not an absolute path"),
        ("://x", "not an absolute path"),
    ],
)
def test_refused(path: str, reason: str) -> None:
    with pytest.raises(OrderRefused, match=reason):
        checked_input_files(["/data/x", path], JOB_DIR)


@pytest.mark.parametrize(
    "path",
    [
        "/data/a b",
        "/data/a b/",
        "/scratch/ewms/jobs-of-others/x",
        "/scratch/ewms2",
        "/process",
        "/data/..x",
        "/data/my-file:2",
        "https://example.org/scratch/ewms/jobs/../x",
        "osdf:///ospool/x",
        "chtc+https://example.org/file",
    ],
)
def test_passed_on_as_they_are(path: str) -> None:
    assert checked_input_files([path], JOB_DIR) == [path]


@pytest.mark.parametrize("job_dir", ["/scratch/ewms/jobs/", "//scratch/ewms/jobs", "/scratch/./ewms/jobs"])
def test_however_the_job_directory_is_written(job_dir: str) -> None:
    for path in ("/scratch", "/scratch/ewms/jobs/x"):
        with pytest.raises(OrderRefused, match="own job directory"):
            checked_input_files([path], Path(job_dir))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("https://x", True), ("a+b.c-d://x", True), ("/x://y", False), ("https:/x", False), ("https://", False)],
)
def test_what_htcondor_takes_for_a_url(text: str, is_one: bool) -> None:
    assert is_url(text) is is_one
