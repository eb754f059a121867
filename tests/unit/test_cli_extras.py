"""`ewms` where a subcommand's packages are not installed: one line says which extra has them."""

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules[sys.argv[1]] = None; from ewms.cli import main; main(sys.argv[2:], prog_name='ewms')"
NAMES = ("EWMS_ADDRESS", "EWMS_TOKEN_URL", "EWMS_CLIENT_ID", "EWMS_CLIENT_SECRET")
ENVIRON = dict.fromkeys(NAMES, "http://host") | {"JOB_EVENT_LOG_DIR": "/jobs"}


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (["tms"], "httpx", "tms"),
        (["check", "tms"], "prometheus_client", "tms"),
        (["top", "--help"], "rich.console", "tms"),
        (["wms-standin", "--help"], "starlette.applications", "demo"),
    ],
)
def test_a_package_that_is_not_installed(command: list[str], package: str, extra: str) -> None:
    argv = [sys.executable, "-c", WITHOUT, package, *command]
    ended = subprocess.run(argv, env=ENVIRON, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert f"needs the package '{package}'" in ended.stderr
    assert f"pip install 'ewms-htcondor[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
