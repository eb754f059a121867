"""docs/try-it.md, block by block, as a person would: only its directory and its port are others here."""

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ewms.pilot.containers.processes import Command, open_launcher
from ewms.testing.pool.ports import free_ports

PAGE = Path(__file__).parents[2] / "docs" / "try-it.md"
DEADLINE_S = 120


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's user has curl")
async def test_the_page_works_as_it_stands(work_dir: Path) -> None:
    here = work_dir / "try"
    (port,) = free_ports(1)
    text = PAGE.read_text().replace("/tmp/try", str(here)).replace("8080", str(port))
    install, standin, schedd, tms, ask = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert "pip install" in install, "what it installs is installed"
    requested, *watched = re.split(r"^(?=curl|ewms log)", ask, flags=re.MULTILINE)[1:]
    prologue = ask.partition("curl")[0]
    async with (
        running(standin, work_dir, until=(here / "wms-standin.env").exists),
        running(schedd, work_dir, until=(here / "schedd" / "schedd.sock").exists),
        running(tms, work_dir, until=lambda: "TMS running" in said(work_dir)),
    ):
        answer = json.loads(await run(prologue + requested))
        uuid = answer["taskforces"][0]["taskforce_uuid"]
        with trio.fail_after(DEADLINE_S):
            while '"RUNNING"' not in await run(prologue + watched[0]):  # noqa: ASYNC110  the page's user asks again, too
                await trio.sleep(0.2)
        assert uuid in await run(prologue + watched[1])
    assert "OK" in said(work_dir), "`ewms check tms` was content"
    assert "Traceback" not in said(work_dir)


ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": "/nonexistent", "COLUMNS": "200"}


@asynccontextmanager
async def running(block: str, work_dir: Path, *, until: Callable[[], bool]) -> AsyncIterator[None]:
    """A block whose last command is a service; in its own terminal, so to speak."""
    command = Command(
        argv=("/bin/bash", "-e", "-c", f"exec >> {work_dir}/said.log 2>&1\n{block}"),
        env=ENVIRONMENT,
        cwd=Path.cwd(),
        stdout=Path(os.devnull),
        stderr=Path(os.devnull),
    )
    async with open_launcher() as launcher, launcher.run(command) as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.wait)
        with trio.move_on_after(DEADLINE_S):
            while not until() and process.exit is None:  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert until(), said(work_dir)
        yield
        nursery.cancel_scope.cancel()


async def run(block: str) -> str:
    done = await trio.run_process(["bash", "-e", "-c", block], env=ENVIRONMENT, capture_stdout=True)
    return done.stdout.decode()


def said(work_dir: Path) -> str:
    return (work_dir / "said.log").read_text()
