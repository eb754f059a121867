"""The pilot's settings: every environment variable of the contract, checked before anything is connected.

`read(environ)` is the only entrance; what it returns is complete and consistent, or it raises one `SettingsError` with
a line for each problem. The names are public: task authors, the TMS and operators set them.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs

from ewms.contract import PILOT_ENV_PREFIXES
from ewms.pilot import checks
from ewms.pilot.brokers.base import QueueAddress
from ewms.pilot.limits import Limits
from ewms.secret import Secret
from ewms.settings import AtLeast, SettingsError, load, names_without_effect, variable

Level = Literal["debug", "info", "warning", "error", "critical"]
PlatformName = Literal["apptainer", "bwrap", "docker", "process", "auto"]
ChirpDestination = Literal["job_event_log", "job_attr"]

RABBITMQ_DROPS_AFTER: Final = 20
"""Returns of a message, from RabbitMQ 4.0 on, unless its operator set another limit."""
_P: Final = "EWMS_PILOT_"


@attrs.frozen(kw_only=True)
class PilotSettings:
    """What one pilot was told. Times are in s, sizes in bytes."""

    task_image: str = variable(f"{_P}TASK_IMAGE", "image that each task container is started from")
    task_args: str = variable(
        f"{_P}TASK_ARGS",
        "arguments of the task, split into words like a POSIX shell does, never given to a shell; "
        "{{INFILE}}, {{OUTFILE}} and {{DATA_HUB}} are replaced",
        default="",
    )
    task_env_json: dict[str, Any] = variable(
        f"{_P}TASK_ENV_JSON", "JSON object of strings and integers: environment of the task container", default={}
    )
    task_timeout: Annotated[float, AtLeast(0.001)] | None = variable(
        f"{_P}TASK_TIMEOUT",
        "s for one task; over it the whole container is killed and the task has failed",
        default=None,
        aliases=(f"{_P}SUBPROC_TIMEOUT",),
    )

    task_memory_limit: Annotated[int, AtLeast(1)] | None = variable(
        f"{_P}TASK_MEMORY_LIMIT",
        "bytes of memory for one task, all its processes together; over it the task has failed",
        default=None,
    )
    task_output_limit: Annotated[int, AtLeast(1)] | None = variable(
        f"{_P}TASK_OUTPUT_LIMIT", "bytes for the outfile of one task; over it the task has failed", default=None
    )
    task_stream_limit: Annotated[int, AtLeast(1)] | None = variable(
        f"{_P}TASK_STREAM_LIMIT",
        "bytes for the stdout, and for the stderr, of one task; over it the task has failed",
        default=None,
    )
    task_silence_limit: Annotated[float, AtLeast(1)] | None = variable(
        f"{_P}TASK_SILENCE_LIMIT",
        "s in which a task must write to its stdout, stderr or outfile, else it has failed",
        default=None,
    )

    init_image: str = variable(
        f"{_P}INIT_IMAGE", "image of the init container, run once before any event is taken", default=""
    )
    init_args: str = variable(f"{_P}INIT_ARGS", "arguments of the init container", default="")
    init_env_json: dict[str, Any] = variable(
        f"{_P}INIT_ENV_JSON", "JSON object of strings and integers: environment of the init container", default={}
    )
    init_timeout: Annotated[float, AtLeast(0.001)] | None = variable(
        f"{_P}INIT_TIMEOUT", "s for the init container", default=None
    )

    queue_incoming: str = variable(f"{_P}QUEUE_INCOMING", "queues that events come from, separated by `;`")
    queue_incoming_auth_token: Secret = variable(
        f"{_P}QUEUE_INCOMING_AUTH_TOKEN", "a token for each incoming queue, in step", default=Secret("")
    )
    queue_incoming_broker_type: str = variable(
        f"{_P}QUEUE_INCOMING_BROKER_TYPE", "the broker type of each incoming queue, in step", default="rabbitmq"
    )
    queue_incoming_broker_address: str = variable(
        f"{_P}QUEUE_INCOMING_BROKER_ADDRESS", "the broker address of each incoming queue, in step", default="localhost"
    )
    queue_outgoing: str = variable(
        f"{_P}QUEUE_OUTGOING", "queues that every output event goes to, separated by `;`", default=""
    )
    queue_outgoing_auth_token: Secret = variable(
        f"{_P}QUEUE_OUTGOING_AUTH_TOKEN", "a token for each outgoing queue, in step", default=Secret("")
    )
    queue_outgoing_broker_type: str = variable(
        f"{_P}QUEUE_OUTGOING_BROKER_TYPE", "the broker type of each outgoing queue, in step", default="rabbitmq"
    )
    queue_outgoing_broker_address: str = variable(
        f"{_P}QUEUE_OUTGOING_BROKER_ADDRESS", "the broker address of each outgoing queue, in step", default="localhost"
    )

    queue_deadletter: str = variable(
        f"{_P}QUEUE_DEADLETTER",
        "the queue that events go to which failed too often (default: they stay in their own queue, marked)",
        default="",
    )
    queue_deadletter_auth_token: Secret = variable(
        f"{_P}QUEUE_DEADLETTER_AUTH_TOKEN", "the token for the dead-letter queue", default=Secret("")
    )
    queue_deadletter_broker_type: str = variable(
        f"{_P}QUEUE_DEADLETTER_BROKER_TYPE", "the broker type of the dead-letter queue", default="rabbitmq"
    )
    queue_deadletter_broker_address: str = variable(
        f"{_P}QUEUE_DEADLETTER_BROKER_ADDRESS", "the broker address of the dead-letter queue", default="localhost"
    )
    consumer_timeout: Annotated[float, AtLeast(1)] = variable(
        f"{_P}CONSUMER_TIMEOUT",
        "s after which RabbitMQ takes an unacknowledged event back (its consumer_timeout); only for warnings",
        default=1800.0,
    )

    infile_ext: str = variable(f"{_P}INFILE_EXT", "extension of the infile, with or without the dot", default=".in")
    outfile_ext: str = variable(f"{_P}OUTFILE_EXT", "extension of the outfile, with or without the dot", default=".out")
    prefetch: Annotated[int, AtLeast(1)] = variable(
        f"{_P}PREFETCH",
        "unacknowledged events that the broker may hand over (at least the slots); more keeps events from other pilots",
        default=1,
    )
    timeout_first_message: Annotated[float, AtLeast(0)] | None = variable(
        f"{_P}TIMEOUT_QUEUE_WAIT_FOR_FIRST_MESSAGE",
        f"s to wait for the first event (default: {_P}TIMEOUT_QUEUE_INCOMING)",
        default=None,
    )
    timeout_incoming: Annotated[float, AtLeast(1)] = variable(
        f"{_P}TIMEOUT_QUEUE_INCOMING",
        "s without a new event, with room for one and all brokers in reach, after which the pilot stops listening",
        default=1.0,
    )
    max_concurrent_tasks: int = variable(
        f"{_P}MAX_CONCURRENT_TASKS", "tasks that run at the same time (slots); below 1 means 1", default=1
    )
    external_directories: str = variable(
        f"{_P}EXTERNAL_DIRECTORIES",
        "comma-separated directories of the host, mounted read-only at the same path",
        default="",
    )

    stop_listening_on_task_error: bool = variable(
        f"{_P}STOP_LISTENING_ON_TASK_ERROR",
        "take no further events after a task failed on an event that had not failed elsewhere: this machine is suspect",
        default=True,
    )
    max_failures: Annotated[int, AtLeast(1)] = variable(
        f"{_P}MAX_FAILURES", "tasks, on whatever worker, that may fail on an event before it is parked", default=5
    )
    max_returns: Annotated[int, AtLeast(1)] = variable(
        f"{_P}MAX_RETURNS",
        "times that a broker may have got an event back without a verdict on it before it is parked unrun, because it "
        "may kill pilots; RabbitMQ from 4.0 on drops an event after 20",
        default=15,
    )

    okay_errors: tuple[str, ...] = variable(
        f"{_P}OKAY_ERRORS",
        "names of exception classes, or exit codes, that do not make the machine suspect",
        default=(),
    )
    okay_error_pattern: str = variable(
        f"{_P}OKAY_ERROR_PATTERN",
        "a regular expression; an error whose text it is found in does not make the machine suspect",
        default="",
    )
    quarantine_time: Annotated[float, AtLeast(0)] = variable(
        f"{_P}QUARANTINE_TIME",
        "s to stay in place after an error, so that no other job lands on a bad machine; "
        f"only together with {_P}STOP_LISTENING_ON_TASK_ERROR",
        default=0.0,
    )
    keep_all_task_files: bool = variable(
        f"{_P}KEEP_ALL_TASK_FILES", "keep the directories of successful tasks too", default=False
    )
    keep_failed_count: Annotated[int, AtLeast(0)] = variable(
        f"{_P}KEEP_FAILED_COUNT", "directories of failed tasks that are kept at most (the oldest go first)", default=100
    )
    keep_failed_bytes: Annotated[int, AtLeast(0)] = variable(
        f"{_P}KEEP_FAILED_BYTES", "bytes in directories of failed tasks that are kept at most", default=1_000_000_000
    )
    dump_task_output: bool = variable(
        f"{_P}DUMP_TASK_OUTPUT",
        "copy every task's stdout and stderr to the pilot's own (always done for a failed one)",
        default=False,
    )
    min_free_disk: Annotated[int, AtLeast(0)] = variable(
        f"{_P}MIN_FREE_DISK",
        "bytes that must be free where the tasks' files are; with less at the start no event is taken, and with less "
        "later a task that fails is the machine's fault",
        default=100_000_000,
    )
    data_dir_parent: Path | None = variable(
        f"{_P}DATA_DIR_PARENT_PATH_ON_HOST",
        "where `ewms-pilot-data/` is made (default: the working directory)",
        default=None,
    )

    htchirp: bool = variable(f"{_P}HTCHIRP", "report to HTCondor through chirp", default=False)
    htchirp_dest: ChirpDestination = variable(
        f"{_P}HTCHIRP_DEST", "JOB_EVENT_LOG or JOB_ATTR: where the reports go", default="job_attr"
    )
    htchirp_ratelimit_interval: Annotated[float, AtLeast(0)] = variable(
        f"{_P}HTCHIRP_RATELIMIT_INTERVAL",
        "s between counter updates (status changes and errors go at once)",
        default=60.0,
    )

    cl_log: Level = variable(f"{_P}CL_LOG", "log level", default="info")
    cl_log_third_party: Level = variable(f"{_P}CL_LOG_THIRD_PARTY", "log level of libraries", default="warning")
    container_debug: bool = variable(
        f"{_P}CONTAINER_DEBUG", "let the container runtime say what it does", default=False
    )
    stop_grace: Annotated[float, AtLeast(0)] | None = variable(
        f"{_P}STOP_GRACE",
        "s that running tasks get after SIGTERM (default: the job's and machine's vacate time - 10; "
        "10 outside HTCondor)",
        default=None,
    )

    container_platform: PlatformName = variable(
        "_EWMS_PILOT_CONTAINER_PLATFORM",
        "apptainer, bwrap (bubblewrap: directory images only, started much faster), docker, process (no isolation, "
        "development only), or auto: bwrap where it works, else apptainer, else docker",
        default="docker",
    )
    apptainer_build_workdir: Path = variable(
        "_EWMS_PILOT_APPTAINER_BUILD_WORKDIR",
        "where images are converted to directories, which stay there for other pilots of this machine",
        default=Path("/var/tmp"),  # noqa: S108  the contract's default
    )
    apptainer_must_be_directory: bool = variable(
        "_EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT",
        "refuse to convert: the image must already be a directory",
        default=True,
    )
    apptainer_images_unused_time: Annotated[float, AtLeast(0)] = variable(
        "_EWMS_PILOT_APPTAINER_IMAGES_UNUSED_TIME",
        "s after which a converted image goes that no pilot of this machine has used (when the next pilot with such an "
        "image starts)",
        default=7 * 86400.0,
    )
    apptainer_images_total_bytes: Annotated[int, AtLeast(0)] = variable(
        "_EWMS_PILOT_APPTAINER_IMAGES_TOTAL_BYTES",
        "bytes that all converted images of this machine may have; with more the longest unused go, never one in use",
        default=50_000_000_000,
    )
    docker_shm_size: str = variable("_EWMS_PILOT_DOCKER_SHM_SIZE", "docker's --shm-size", default="")

    # What HTCondor and the system tell; not the pilot's own, but read at the same edge.
    chirp_config: Path | None = variable("_CONDOR_CHIRP_CONFIG", "chirp's address and cookie (HTCondor)", default=None)
    job_ad: Path | None = variable("_CONDOR_JOB_AD", "the job's ad (HTCondor)", default=None)
    machine_ad: Path | None = variable("_CONDOR_MACHINE_AD", "the machine's ad (HTCondor)", default=None)
    path: str = variable("PATH", "where the container runtime is looked for", default=os.defpath)
    home: str = variable("HOME", "the container runtime's own home", default="")
    apptainer_cachedir: str = variable("APPTAINER_CACHEDIR", "Apptainer's own cache", default="")
    apptainer_tmpdir: str = variable("APPTAINER_TMPDIR", "Apptainer's own temporary files", default="")
    docker_host: str = variable("DOCKER_HOST", "where the Docker daemon listens", default="")
    docker_config: str = variable("DOCKER_CONFIG", "Docker's own settings: credentials of registries", default="")

    @staticmethod
    def problems_between(values: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with the values together; those that are wrong by themselves are not in `values`."""
        return checks.problems(values)

    @property
    def incoming(self) -> tuple[QueueAddress, ...]:
        """The incoming queues."""
        return checks.queues("incoming", attrs.asdict(self, recurse=False))

    @property
    def outgoing(self) -> tuple[QueueAddress, ...]:
        """The outgoing queues; an output event goes to every one."""
        return checks.queues("outgoing", attrs.asdict(self, recurse=False))

    @property
    def deadletter(self) -> QueueAddress | None:
        """The dead-letter queue, if there is one."""
        return next(iter(checks.queues("deadletter", attrs.asdict(self, recurse=False))), None)

    @property
    def limits(self) -> Limits:
        """What a task must not exceed."""
        limited = any(address.broker_type == "rabbitmq" for address in self.incoming)
        return Limits(
            memory=self.task_memory_limit,
            output=self.task_output_limit,
            streams=self.task_stream_limit,
            silence=self.task_silence_limit,
            unacked=self.consumer_timeout if limited else None,
        )

    @property
    def slots(self) -> int:
        """How many tasks may run at the same time."""
        return max(1, self.max_concurrent_tasks)

    @property
    def broker_prefetch(self) -> int:
        """The prefetch that the broker is told, constant."""
        return max(self.prefetch, self.slots)

    @property
    def first_message_timeout(self) -> float:
        """Seconds to wait for the first event."""
        return self.timeout_incoming if self.timeout_first_message is None else self.timeout_first_message

    @property
    def external(self) -> tuple[Path, ...]:
        """The host directories that every container sees read-only at the same path."""
        return tuple(Path(word.strip()) for word in self.external_directories.split(",") if word.strip())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but is probably not meant; one line each."""
        found = []
        if self.max_concurrent_tasks < 1:
            found.append(f"{_P}MAX_CONCURRENT_TASKS: {self.max_concurrent_tasks} is below 1 and means 1")
        if not self.queue_outgoing:
            found.append(f"{_P}QUEUE_OUTGOING: is not set; what tasks write to their outfile is not sent anywhere")
        if again := {(each.queue, each.broker_address) for each in self.incoming} & {
            (each.queue, each.broker_address) for each in self.outgoing
        }:
            names = ", ".join(sorted(queue for queue, _ in again))
            found.append(f"{_P}QUEUE_OUTGOING: {names} is an incoming queue too: every output is an event again")
        if not self.init_image and (self.init_args or self.init_env_json or self.init_timeout):
            found.append(f"{_P}INIT_IMAGE: is not set; the other settings of an init container have no effect")
        if self.limits.unacked is not None and self.max_returns >= RABBITMQ_DROPS_AFTER:
            found.append(
                f"{_P}MAX_RETURNS: {self.max_returns} is too many: RabbitMQ drops an event that it got back "
                f"{RABBITMQ_DROPS_AFTER} times before any pilot parks it"
            )
        if self.limits.unacked is not None and (self.task_timeout or 0) > self.limits.unacked:
            found.append(
                f"{_P}TASK_TIMEOUT: {self.task_timeout:g} is above {_P}CONSUMER_TIMEOUT: the broker gives the event of "
                "a task that runs so long to another pilot too"
            )
        return tuple(found)


def read(environ: Mapping[str, str]) -> PilotSettings:
    """The settings of a pilot.

    Raises:
        SettingsError: with one line for each problem.
    """
    return load(PilotSettings, environ)


def without_effect(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like a setting of the pilot's and is none."""
    return names_without_effect(PilotSettings, environ, PILOT_ENV_PREFIXES)


def extension(text: str) -> str:
    """A file extension with its dot, however it was written; "" stays ""."""
    return f".{text.lstrip('.')}" if text.strip(".") else ""


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """A checked `…_ENV_JSON` object as an environment."""
    return {name: str(value) for name, value in values.items()}


__all__ = ["PilotSettings", "SettingsError", "environment", "extension", "read", "without_effect"]
