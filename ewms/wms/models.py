"""What the WMS and the TMS tell each other, as frozen attrs classes.

The names are the WMS's own. Fields that the TMS can do without have defaults, so that a WMS that stops sending one
(or sends a null for a deprecated one) breaks nothing; keys that are not here are ignored by the converter.
"""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from ewms.secret import Secret

EnvironmentValue = str | int | tuple[str, ...]
"""A value of `pilot_config.environment`; a list is sent as a JSON array."""

CompoundStatuses = Mapping[str, Mapping[str, int]]
"""Job status → pilot status (`"null"` where there is none yet) → number of jobs."""

TopTaskErrors = Mapping[str, int]
"""Error text → number of jobs."""


class Phase(StrEnum):
    """Where a taskforce is in its life, as the WMS sees it."""

    PRE_MQ_ACTIVATION = "pre-mq-activation"
    PRE_LAUNCH = "pre-launch"
    PENDING_STARTER = "pending-starter"
    CONDOR_SUBMIT = "condor-submit"
    PENDING_STOPPER = "pending-stopper"
    CONDOR_RM = "condor-rm"
    CONDOR_COMPLETE = "condor-complete"


@attrs.frozen
class PilotConfig:
    """How each pilot of a taskforce is made."""

    tag: str
    image_source: str
    environment: Mapping[str, EnvironmentValue] = attrs.field(factory=dict)
    input_files: tuple[str, ...] = ()


@attrs.frozen
class WorkerConfig:
    """What each worker (one HTCondor job) asks of the pool."""

    do_transfer_worker_stdouterr: bool
    max_worker_runtime: int
    """In s."""
    n_cores: int
    priority: int
    worker_disk: str | int
    """A number with a unit (`"512M"`), or bytes."""
    worker_memory: str | int
    """A number with a unit (`"1 GB"`), or bytes."""
    condor_requirements: str = ""


@attrs.frozen
class PhaseChange:
    """One entry of a taskforce's log: a phase that was reached, or an attempt at it that failed."""

    target_phase: str
    timestamp: float
    was_successful: bool
    source_event_time: float | None = None
    source_entity: str = ""
    context: str = ""


@attrs.frozen
class Taskforce:
    """One cluster's worth of pilots for one task at one schedd."""

    taskforce_uuid: str
    task_id: str
    workflow_id: str
    timestamp: float
    """Epoch s at which the WMS made it."""
    priority: int
    schedd: str
    n_workers: int | None
    pilot_config: PilotConfig
    worker_config: WorkerConfig
    phase: Phase
    collector: str | None = None
    cluster_id: int | None = None
    submit_dict: Mapping[str, str | int] = attrs.field(factory=dict)
    job_event_log_fpath: str = ""
    phase_change_log: tuple[PhaseChange, ...] = ()
    compound_statuses: CompoundStatuses = attrs.field(factory=dict)
    top_task_errors: TopTaskErrors = attrs.field(factory=dict)


@attrs.frozen
class TaskDirective:
    """What a taskforce's pilots do with each event."""

    task_id: str
    workflow_id: str
    timestamp: float
    cluster_locations: tuple[str, ...]
    task_image: str
    task_args: str
    input_queues: tuple[str, ...]
    """The `mqid` of each incoming queue."""
    output_queues: tuple[str, ...]
    task_env: Mapping[str, str] = attrs.field(factory=dict)
    init_image: str | None = None
    init_args: str | None = None
    init_env: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class MQProfile:
    """One queue and the way to it."""

    mqid: str
    workflow_id: str
    timestamp: float
    alias: str
    is_public: bool
    is_activated: bool
    auth_token: Secret | None
    broker_type: str | None
    """`rabbitmq`, `nats`, `pulsar` (and whatever the pilot knows besides)."""
    broker_address: str | None


@attrs.frozen
class StartOrder:
    """Everything that is needed to start one taskforce."""

    taskforce: Taskforce
    task_directive: TaskDirective
    mqprofiles: tuple[MQProfile, ...]
