"""Start order and settings → submit description and envfile (pure)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from ewms.contract import ENVFILE_NAME, TASKFORCE_ATTRIBUTE, taskforce_dir_name
from ewms.tms.envfile import envfile_text, environment, parse_pilot_variables
from ewms.tms.errors import OrderRefused
from ewms.tms.inputnames import checked_input_files
from ewms.tms.policy import EXPRESSIONS, memory_request
from ewms.tms.settings import Settings
from ewms.tms.submit_language import (
    KIB,
    MIB,
    checked,
    checked_tag,
    checked_uuid,
    classad_string,
    for_proc,
    priority_ramp,
    rounded_up,
    size_in_bytes,
)
from ewms.wms.models import StartOrder, Taskforce, WorkerConfig


@attrs.frozen
class Submission:
    """Everything that is needed to submit one taskforce's cluster."""

    taskforce_uuid: str
    n_workers: int
    log_path: Path
    description: Mapping[str, str | int]
    expressions: Mapping[str, str]
    """Name → ClassAd expression that HTCondor's own parser has to accept first."""
    numbers: tuple[tuple[str, str], ...]
    """(submit command, expression) for its first proc and its last: HTCondor must make whole numbers of them first."""
    envfile_path: Path
    envfile: str = attrs.field(repr=False)


def build(order: StartOrder, settings: Settings, log_path: Path, avoided: Iterable[tuple[str, str]] = ()) -> Submission:
    """What to submit for `order`; raises `OrderRefused` with the reason when it cannot be honoured as it is.

    `avoided`: machine attributes and the values that a worker's machine must not have, besides those of the settings.
    """
    taskforce = order.taskforce
    uuid = checked_uuid(taskforce.taskforce_uuid)
    own_requirements = checked("condor_requirements", taskforce.worker_config.condor_requirements).strip()
    requirements = _requirements(own_requirements, settings, avoided)
    taskforce_dir = settings.job_dir / taskforce_dir_name(uuid)
    envfile_path = taskforce_dir / ENVFILE_NAME
    priority = priority_ramp(taskforce.worker_config.priority, _n_workers(taskforce))
    policy = settings.policy.commands()
    input_files = checked_input_files(taskforce.pilot_config.input_files, settings.job_dir)
    operators = parse_pilot_variables(settings.pilot_environment).passed_on
    return Submission(
        taskforce_uuid=uuid,
        n_workers=_n_workers(taskforce),
        log_path=log_path,
        description={
            "universe": "container",
            "container_image": _image(taskforce, settings),
            "transfer_container": "false",
            "requirements": requirements,
            "log": str(log_path),
            "should_transfer_files": "YES",
            "when_to_transfer_output": "ON_EXIT_OR_EVICT",
            "transfer_input_files": ",".join([*input_files, str(envfile_path)]),
            "transfer_output_files": '""',  # an empty value would mean every new file
            **_resources(taskforce.worker_config),
            "priority": priority,
            "max_idle": settings.max_idle,  # makes the cluster a job factory
            **_runtime_limit(taskforce.worker_config),
            **policy,
            **_vacate_time(settings),
            **_output_files(taskforce.worker_config, taskforce_dir),
            # What chirp needs to reach log and ad. `WantIOProxy` would open the access point's files to workers, too.
            "+WantRemoteUpdates": "true",
            f"+{TASKFORCE_ATTRIBUTE}": classad_string(uuid),
            # Every HTCondor version writes this note on the submit events, so that the log itself names the taskforce.
            "submit_event_user_notes": f"{TASKFORCE_ATTRIBUTE}={uuid}",
        },
        expressions={
            **({"condor_requirements": own_requirements} if own_requirements else {}),
            "requirements": requirements,
            **{name: policy[name] for name in EXPRESSIONS},
        },
        numbers=tuple(("priority", for_proc(str(priority), proc)) for proc in sorted({0, _n_workers(taskforce) - 1})),
        envfile_path=envfile_path,
        envfile=envfile_text(environment(order, operators)),
    )


def _n_workers(taskforce: Taskforce) -> int:
    if taskforce.n_workers is None:
        raise OrderRefused("n_workers: is null; the TMS cannot choose how many workers a taskforce gets")
    if taskforce.n_workers < 1:
        raise OrderRefused(f"n_workers: {taskforce.n_workers} is not at least 1")
    return taskforce.n_workers


def _image(taskforce: Taskforce, settings: Settings) -> str:
    pilot = taskforce.pilot_config
    cvmfs = f"{settings.cvmfs_pilot_path}:{{tag}}"
    sources = {"cvmfs": cvmfs, "auto": cvmfs, **dict(settings.image_sources)}
    if pilot.image_source not in sources:
        known = ", ".join(sorted(sources))
        raise OrderRefused(f"pilot_config.image_source: {pilot.image_source!r} is not known here; known are: {known}")
    return checked("container_image", sources[pilot.image_source].replace("{tag}", checked_tag(pilot.tag)))


def _requirements(own: str, settings: Settings, avoided: Iterable[tuple[str, str]]) -> str:
    base = settings.base_requirements.strip()
    excluded = [("GLIDEIN_Site", site) for site in settings.excluded_glidein_sites]
    excluded += [("OSG_SITE_NAME", site) for site in settings.excluded_osg_sites]
    excluded += [each for each in avoided if each not in excluded]
    terms = [f"({base})"] if base else []
    # =!= lets a machine pass that does not name its site.
    terms += [f"{attribute} =!= {classad_string(site)}" for attribute, site in excluded]
    terms += settings.policy.requirements()
    terms += [f"({own})"] if own else []
    return " && ".join(terms) or "true"


def _resources(worker: WorkerConfig) -> dict[str, str | int]:
    if worker.n_cores < 1:
        raise OrderRefused(f"n_cores: {worker.n_cores} is not at least 1")
    return {
        "request_cpus": worker.n_cores,
        # Bare numbers: MiB for memory, KiB for disk.
        "request_memory": memory_request(rounded_up(size_in_bytes("worker_memory", worker.worker_memory), MIB)),
        "request_disk": rounded_up(size_in_bytes("worker_disk", worker.worker_disk), KIB),
    }


def _runtime_limit(worker: WorkerConfig) -> dict[str, int]:
    if worker.max_worker_runtime < 1:
        raise OrderRefused(f"max_worker_runtime: {worker.max_worker_runtime} is not at least 1 s")
    return {"allowed_execute_duration": worker.max_worker_runtime}


def _vacate_time(settings: Settings) -> dict[str, int]:
    return {} if settings.job_max_vacate_time is None else {"job_max_vacate_time": settings.job_max_vacate_time}


def _output_files(worker: WorkerConfig, taskforce_dir: Path) -> dict[str, str]:
    if not worker.do_transfer_worker_stdouterr:
        return {}
    stem = f"{taskforce_dir}/cluster-$(ClusterId)/$(ProcId)"
    return {"output": f"{stem}.out", "error": f"{stem}.err"}
