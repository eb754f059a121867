"""The bodies that the WMS takes, to the letter: unknown keys, missing keys and wrong types are a 400."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs

from ewms.testing.wms.problems import Problem
from ewms.wms.converter import make_converter, problems
from ewms.wms.models import PilotConfig, WorkerConfig

T = TypeVar("T")


@attrs.frozen
class Nothing:
    """The body of a call that has none (`{}` is fine too)."""


@attrs.frozen
class StartConfirmed:
    """`POST /tms/condor-submit/taskforces/{uuid}`."""

    cluster_id: int
    n_workers: int
    submit_dict: Mapping[str, str | int]
    job_event_log_fpath: str


@attrs.frozen
class Failed:
    """`POST …/failed`."""

    error: str


@attrs.frozen
class Completed:
    """`POST /tms/condor-complete/taskforces/{uuid}`."""

    condor_complete_ts: int


@attrs.frozen
class Statuses:
    """`POST /tms/statuses/taskforces`; a key that is there may not be empty."""

    compound_statuses_by_taskforce: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None
    top_task_errors_by_taskforce: Mapping[str, Mapping[str, int]] | None = None


@attrs.frozen
class Query:
    """`POST /query/…`."""

    query: Mapping[str, Any]
    projection: tuple[str, ...] = ()
    after: str | None = None


@attrs.frozen
class FullPilotConfig(PilotConfig):
    """As a user gives it: complete."""

    environment: Mapping[str, str | int | tuple[str, ...]]
    input_files: tuple[str, ...]


@attrs.frozen
class FullWorkerConfig(WorkerConfig):
    """As a user gives it: complete."""

    condor_requirements: str


@attrs.frozen
class TaskRequest:
    """One task of a workflow request."""

    cluster_locations: tuple[str, ...]
    input_queue_aliases: tuple[str, ...]
    output_queue_aliases: tuple[str, ...]
    task_image: str
    task_args: str
    n_workers: int
    worker_config: FullWorkerConfig
    pilot_config: FullPilotConfig | None = None
    task_env: Mapping[str, str] = attrs.field(factory=dict)
    init_image: str | None = None
    init_args: str | None = None
    init_env: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class WorkflowRequest:
    """`POST /workflows`."""

    public_queue_aliases: tuple[str, ...]
    tasks: tuple[TaskRequest, ...]
    priority: int = 50


def parse(cls: type[T], body: bytes) -> T:
    """Make a `cls` of a request's body.

    Raises:
        Problem: 400, with every problem.
    """
    try:
        value = json.loads(body) if body or cls is not Nothing else {}
    except ValueError:
        raise Problem(400, "the body is not JSON") from None
    return structure(cls, value)


def structure(cls: type[T], value: Any) -> T:
    """Make a `cls` of a JSON value; raises `Problem` (400) with every problem."""
    try:
        made = _converter.structure(value, cls)
    except Exception as error:  # noqa: BLE001  cattrs raises groups and whatever a hook raises
        raise Problem(400, "; ".join(problems(error))) from None
    if isinstance(made, Statuses):
        _check_not_empty(made)
    return made


def _check_not_empty(statuses: Statuses) -> None:
    given = [each for each in attrs.astuple(statuses, recurse=False) if each is not None]
    if not given or not all(given):
        raise Problem(400, "a top-level key must be there with entries, or not at all; at least one of the two")


def unstructure(value: Any) -> Any:
    """The JSON value of a parsed body or a part of it."""
    return _converter.unstructure(value)


_converter: Final = make_converter(forbid_extra_keys=True)
