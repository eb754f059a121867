"""A release without an image: the virtual environment of docs/operators.md, made and run as it says there."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.wheels import running_wheel

GUIDE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()


def test_the_page_makes_a_release_that_runs(tmp_path: Path) -> None:
    found = re.search(r"^## Without an image\n.*?^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    # What stands there comes from an index, and with what it needs: here it is what runs, beside what is installed.
    block, n = re.subn(r"'ewms-htcondor\[tms\]==[\d.]+'", f"--no-index --no-deps {running_wheel(tmp_path)}", found[1])
    assert n == 1
    instance = tmp_path / "prod"
    instance.mkdir()
    (instance / "ewms").symlink_to(containers_dir() / "systemd" / "ewms.sh")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(tmp_path)}
    subprocess.run(["bash", "-euc", block], cwd=instance, env=environment, check=True, timeout=300)
    done = subprocess.run(
        ["./ewms", "--version"],
        cwd=instance,
        env={**environment, "PYTHONPATH": sysconfig.get_path("purelib")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"ewms, version {version('ewms-htcondor')}\n"
