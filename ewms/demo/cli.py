"""`ewms demo`: pick a ground, run the main job on it, say how it went."""

import os
import sys
import tempfile
import time
from pathlib import Path

import click
import trio

from ewms import logs
from ewms.groups import leaves


@click.command()
@click.option("--pool", "ground", flag_value="pool", help="Insist on a real HTCondor pool.")
@click.option("--embedded", "ground", flag_value="embedded", help="Use the embedded schedd and broker: no root needed.")
@click.option("--events", default=200, show_default=True, type=click.IntRange(1), help="How many events to process.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1), help="How many pilots to start.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to work and leave the logs; a new directory in /tmp by default.",
)
def demo(ground: str | None, events: int, workers: int, directory: Path | None) -> None:
    """Run the main job on this machine.

    It brings up an HTCondor pool, a RabbitMQ broker and a stand-in for the WMS, starts the TMS, requests a workflow,
    sends events with oms-mqclient, shows the progress, checks the results, stops the workflow, and tears everything
    down. Where a real pool cannot be built (that needs Linux, root and Debian's packages) it says why and uses the
    embedded schedd and broker instead.

    \b
    Examples:
      ewms demo                        the real pool where it can be built
      ewms demo --embedded             no root, no downloads
      ewms demo --pool --events 1000 --workers 8
    """
    from ewms.demo.run import DemoFailed, Plan, run_demo

    # Not TMPDIR: the pool's ordinary user must be able to walk there, and nox puts that into the work tree.
    work_dir = directory or Path(tempfile.mkdtemp(prefix="ewms-demo-", dir="/tmp"))
    work_dir.mkdir(parents=True, exist_ok=True)
    work_dir.chmod(0o755)
    wheel = os.environ.get("EWMS_DEMO_WHEEL")
    plan = Plan(
        ground=ground or "auto",
        n_events=events,
        n_workers=workers,
        work_dir=work_dir.resolve(),
        wheel=Path(wheel) if wheel else None,
    )
    started = time.time()
    with (work_dir / "demo.log").open("w") as stream:
        logs.configure("DEBUG", "INFO", stream=stream)
        try:
            trio.run(run_demo, plan)
        except KeyboardInterrupt:
            click.echo(f"\ninterrupted after {time.time() - started:.0f} s; everything is torn down. Logs: {work_dir}")
            sys.exit(130)
        except BaseExceptionGroup as group:
            failures, rest = group.split(DemoFailed)
            if rest is not None or failures is None:
                raise
            for error in leaves(failures):
                click.echo(f"\nthe demo failed: {error}\nLogs: {work_dir}")
            sys.exit(1)
