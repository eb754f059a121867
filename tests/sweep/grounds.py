"""Where a sweep runs: the embedded schedd, or a real pool. Both give the commands that a lane starts."""

import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs

from ewms.testing.pool import open_pool
from ewms.testing.schedd import open_embedded_schedd
from tests.sweep import victim

Say = Callable[[str], None]
_VICTIM: Final = Path(victim.__file__)


@attrs.frozen(kw_only=True)
class Ground:
    """A schedd, and how to run a TMS and its helpers beside it."""

    name: str
    requirements: str
    python: str
    command: Callable[[list[str]], list[str]]
    """The command line that runs a command there, as the ordinary user."""
    victim: Path
    """`victim.py`, where such a command can read it."""
    helper: Sequence[str]
    """The production helper's command, to be run there."""
    job_dir: Path
    """Below it lanes have their job directories."""
    make_job_dir: Callable[[Path], None]

    def tms(self, gate: Path, job_dir: Path) -> list[str]:
        """The command of a TMS that asks at `gate`."""
        return self.command([self.python, str(self.victim), str(gate), "tms", str(job_dir)])

    def helper_setting(self, gate: Path, *, has_history: bool) -> str:
        """`TMS_SCHEDD_HELPER` for helpers that ask at `gate`."""
        role = "helper" if has_history else "helper-without-history"
        python, *rest = self.helper
        flags = [each for each in rest if each in ("-I", "-S")]
        program = rest[len(flags) :]
        return " ".join([python, *flags, str(self.victim), str(gate), role, *program])


@asynccontextmanager
async def open_embedded(work_dir: Path, lanes: int, _say: Say) -> AsyncIterator[Ground]:
    """The embedded schedd; its workers sleep."""
    entrypoint = ["/bin/sleep", "100000"]
    async with open_embedded_schedd(work_dir / "schedd", slots=2 * lanes, entrypoint=entrypoint) as schedd:
        yield Ground(
            name="embedded",
            requirements="true",
            python=sys.executable,
            command=list,
            victim=_VICTIM,
            helper=schedd.helper_command,
            job_dir=work_dir,
            make_job_dir=Path.mkdir,
        )


@asynccontextmanager
async def open_real(work_dir: Path, _lanes: int, say: Say, *, wheel: Path | None) -> AsyncIterator[Ground]:
    """A real pool; no machine of it matches, so that jobs stay idle.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with open_pool(work_dir, progress=say, wheel=wheel, rabbitmq=False) as pool:
        copy = work_dir / "victim.py"
        shutil.copyfile(_VICTIM, copy)
        copy.chmod(0o644)

        def make_job_dir(path: Path) -> None:
            path.mkdir()
            status = pool.job_dir.stat()
            shutil.chown(path, status.st_uid, status.st_gid)

        yield Ground(
            name="pool",
            requirements="false",
            python=pool.python,
            command=pool.command,
            victim=copy,
            helper=[pool.python, "-m", "ewms.tms.condor.helper"],
            job_dir=pool.job_dir,
            make_job_dir=make_job_dir,
        )
