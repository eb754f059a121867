"""What HTCondor makes of input files: `ewms.tms.inputfiles` has to see as much."""

from typing import TYPE_CHECKING

import pytest
from pilot_job import make_directory, run_job

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool


def test_what_htcondor_sends_is_what_an_order_is_judged_by(pool: "Pool") -> None:
    """It follows links to files, in directories too, and to a directory that ends in a slash; `://` alone is no URL."""
    directory = make_directory(pool, "asking")
    for name in ("elsewhere/deep", "data", "odd:"):
        (directory / name).mkdir(parents=True)
    (directory / "elsewhere" / "secret").write_text("secret\n")
    (directory / "elsewhere" / "deep" / "other").write_text("other secret\n")
    (directory / "data" / "link").symlink_to("../elsewhere/secret")
    (directory / "over").symlink_to("elsewhere")
    (directory / "odd:" / "path").write_text("a path\n")
    asked = ",".join(f"{directory}/{path}" for path in ("data", "over/", "odd://path"))
    names = ("data/link", "secret", "deep/other", "path")
    said = run_job(pool, directory, f"cat {' '.join(names)}", f"transfer_input_files = {asked}")
    assert said.split("\n") == ["secret", "secret", "other secret", "a path", ""]
