"""A task is isolated at least as well by bubblewrap as by `apptainer run --containall`: `docs/isolation.md`, by line.

Both launchers start the same task in the same place: in a container-universe job, as on a worker, and on a machine
itself. What its two tasks saw is compared row by row.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import isolation_look
import isolation_views
import pytest
import trio
from isolation_rows import ROWS, Row, Seen
from pilot_job import make_directory, run_job

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

PROGRAMS: Final = (isolation_look.__file__, isolation_views.__file__)
LAUNCHERS: Final = ("bwrap", "bwrap-begun")
"""As it is started for an event, and begun before there is one."""
APPTAINER_BEGUN: Final = "apptainer-begun"
ONLY_OF_BUBBLEWRAP: Final = ("proc", "sys", "mounts")
"""Rows in which it is stricter than Apptainer."""
ARGUMENTS: Final = ("isolation_views.py", "/images/task:1", ".", "apptainer", APPTAINER_BEGUN, *LAUNCHERS)


def directory_with_programs(pool: "Pool", name: str) -> Path:
    directory = make_directory(pool, name)
    for program in PROGRAMS:
        shutil.copy(program, directory)
    return directory


def in_a_job(pool: "Pool") -> str:
    directory = directory_with_programs(pool, "isolation-job")
    command = f"python3 {' '.join(ARGUMENTS)}"
    return run_job(pool, directory, command, "transfer_input_files = isolation_look.py, isolation_views.py")


def on_the_machine(pool: "Pool") -> str:
    directory = directory_with_programs(pool, "isolation-machine")
    # The pool's machine has no bubblewrap of its own; the pilot image's does.
    bwrap = f"{pool.pilot_image_base}:{pool.pilot_tag}/usr/bin/bwrap"
    path = f"{directory}:/usr/bin:/bin"

    async def run() -> bytes:
        await pool.run(["cp", bwrap, str(directory)])
        argv = ["env", f"PATH={path}", pool.python, *ARGUMENTS]
        return (await pool.run(argv, cwd=str(directory))).stdout

    return trio.run(run).decode()


@pytest.fixture(scope="module", params=[in_a_job, on_the_machine], ids=lambda each: str(each.__name__))
def seen(request: pytest.FixtureRequest, pool: "Pool") -> dict[str, Seen]:
    """What the pilot, and a task with each launcher, saw in one place."""
    said: str = request.param(pool)
    assert said.splitlines()[-1:], "nothing was said"
    found: dict[str, Seen] = json.loads(said.splitlines()[-1])
    return found


@pytest.mark.pool
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.__name__))
def test_row(row: Row, launcher: str, seen: dict[str, Seen]) -> None:
    row(seen["pilot"], seen["apptainer"], seen[launcher])


@pytest.mark.pool
@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.__name__ not in ONLY_OF_BUBBLEWRAP],
    ids=lambda row: str(row.__name__),
)
def test_row_of_apptainer_begun_ahead(row: Row, seen: dict[str, Seen]) -> None:
    row(seen["pilot"], seen["apptainer"], seen[APPTAINER_BEGUN])
