"""`ewms wms-standin` as a person runs it."""

import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import trio
from click.testing import CliRunner

from ewms.testing.cli import wms_standin


async def test_it_says_where_it_is_keeps_its_secrets_private_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ewms", "wms-standin", "--port", "0", "--location", "demo=S1"]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env={}
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = b""
    try:
        with trio.fail_after(60):
            while b"ready" not in said:
                said += await process.stdout.receive_some()
        variables = dict(line.split("=", 1) for line in (tmp_path / "wms-standin.env").read_text().splitlines())
        name, value = (tmp_path / "wms-standin.header").read_text().strip().split(": ", 1)
        async with httpx.AsyncClient(base_url=variables["EWMS_ADDRESS"], verify=False) as http:  # plain HTTP
            answer = await http.post("/v1/query/workflows", json={"query": {}}, headers={name: value})
            assert answer.json() == {"workflows": [], "next_after": None}
        process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            assert await process.wait() == 0
        logged = await process.stderr.receive_some()
    finally:
        process.kill()
        await process.stdout.aclose()
        await process.stderr.aclose()
    text = (said + logged).decode()
    assert variables["EWMS_ADDRESS"] in text
    assert variables["EWMS_TOKEN_URL"] in text
    assert variables["EWMS_CLIENT_SECRET"] not in text
    assert value.split()[1] not in text
    for file in ("wms-standin.env", "wms-standin.header"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
    assert "Traceback" not in text


def test_a_bad_location_is_one_clear_line() -> None:
    result = CliRunner().invoke(wms_standin, ["--location", "demo"])
    assert result.exit_code == 2
    assert "'demo' is not LOCATION=SCHEDD" in result.output


async def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "ewms", "wms-standin", "--port", port, "--location", "demo=S1"]
        with trio.fail_after(60):
            done = await trio.run_process(command, cwd=tmp_path, env={}, check=False, capture_stderr=True)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"Error: cannot run at 127.0.0.1:{port}: ")
    assert "in use" in line
    assert not (tmp_path / "wms-standin.env").exists()


def test_help_has_examples_that_keep_their_lines() -> None:
    help_text = CliRunner().invoke(wms_standin, ["--help"]).output
    assert re.search(r"^ +ewms wms-standin --location demo=", help_text, re.MULTILINE)
    assert re.search(r"^ +curl -X DELETE \$EWMS_ADDRESS/_standin/faults$", help_text, re.MULTILINE)
