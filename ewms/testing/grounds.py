"""The two grounds that the whole system can stand on: a real HTCondor pool, and the embedded schedd.

Both give the same `Ground`, so that the demo and the integration tests are written once.
"""

import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.secret import Secret
from ewms.testing.pool import Pool, open_pool
from ewms.testing.queues import LocalQueues, MqclientQueues, UserQueues
from ewms.testing.schedd import open_embedded_schedd

Report = Callable[[str], None]

# A worker that fails here would wait in vain for another machine.
_ONE_MACHINE: Final = {"TMS_MAX_REQUEUES": "0"}

SCHEDD_NAME: Final = "access-point.example.org"
"""How the stand's access point is called towards the WMS."""


@attrs.frozen(kw_only=True)
class Ground:
    """A place where a TMS can submit pilots, and a broker that they can reach."""

    name: str
    """`pool` or `embedded`."""
    description: str
    """One line for people, with versions."""
    job_dir: Path
    task_image: str
    pilot_config: Mapping[str, Any]
    """A complete `pilot_config` of a workflow request."""
    broker_type: str
    broker_address: str
    broker_token: Secret
    queues: UserQueues
    tms_settings: Mapping[str, str]
    """What the TMS's settings say on this ground."""
    python: str
    command: Callable[[list[str]], list[str]]
    """The command line that runs a command on this ground, as the ordinary user."""
    logs: Path
    """Where the ground's own logs are afterwards."""


@asynccontextmanager
async def open_pool_ground(
    work_dir: Path, report: Report, *, wheel: Path | None, n_cpus: int = 8
) -> AsyncIterator[Ground]:
    """A real pool, with RabbitMQ beside it.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with open_pool(work_dir, progress=report, wheel=wheel, n_cpus=n_cpus) as pool:
        yield pool_ground(pool, work_dir)


def pool_ground(pool: Pool, work_dir: Path) -> Ground:
    """The ground that an open pool gives."""
    versions = pool.versions
    return Ground(
        name="pool",
        description=(
            f"a real HTCondor pool: HTCondor {versions.condor}, Apptainer {versions.apptainer}, "
            f"RabbitMQ {versions.rabbitmq}"
        ),
        job_dir=pool.job_dir,
        task_image=pool.task_image,
        pilot_config=_pilot_config(pool.pilot_tag),
        broker_type="rabbitmq",
        broker_address=pool.broker_address,
        broker_token=pool.broker_token,
        queues=MqclientQueues(pool.broker_address, pool.broker_token),
        tms_settings={
            **_ONE_MACHINE,
            "CVMFS_PILOT_PATH": pool.pilot_image_base,
            # A SIGTERM that meets Apptainer while it starts the container is lost: so long the worker lives on then.
            "TMS_JOB_MAX_VACATE_TIME": "45",
        },
        python=pool.python,
        command=pool.command,
        logs=work_dir / "logs",
    )


@asynccontextmanager
async def open_embedded_ground(work_dir: Path, report: Report, *, slots: int = 4) -> AsyncIterator[Ground]:
    """The embedded schedd and broker: workers are local processes, tasks run without isolation."""
    job_dir, broker_dir = work_dir / "jobs", work_dir / "broker"
    for directory in (job_dir, broker_dir):
        directory.mkdir(parents=True, exist_ok=True)
    report("starting the embedded schedd")
    async with open_embedded_schedd(work_dir / "schedd", slots=slots) as schedd:
        yield Ground(
            name="embedded",
            description="the embedded schedd and broker (workers are local processes, tasks are NOT isolated)",
            job_dir=job_dir,
            task_image="none",
            pilot_config=_pilot_config("local", _EWMS_PILOT_CONTAINER_PLATFORM="process"),
            broker_type="local",
            broker_address=str(broker_dir),
            # The broker looks at none; but it goes the ways of a real one, and must show nowhere.
            broker_token=Secret(secrets.token_urlsafe()),
            queues=LocalQueues(str(broker_dir)),
            tms_settings={
                **_ONE_MACHINE,
                "TMS_BASE_REQUIREMENTS": "true",
                "TMS_SCHEDD_HELPER": " ".join(schedd.helper_command),
                "CVMFS_PILOT_PATH": "/images/ewms-pilot",
            },
            python=sys.executable,
            command=list,
            logs=work_dir / "schedd",
        )


def _pilot_config(tag: str, **environment: str | int) -> Mapping[str, Any]:
    # Workers wait for events until they are stopped.
    waits = {"EWMS_PILOT_TIMEOUT_QUEUE_INCOMING": 600}
    return {"tag": tag, "image_source": "cvmfs", "environment": {**waits, **environment}, "input_files": []}
