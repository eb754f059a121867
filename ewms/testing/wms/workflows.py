"""A user's workflow request → the documents that the WMS makes of it. Pure, but for the random part of the ids."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ewms.testing.wms.phases import Document
from ewms.testing.wms.problems import Problem
from ewms.testing.wms.schema import TaskRequest, WorkflowRequest, unstructure
from ewms.wms.models import Phase

Locations = Mapping[str, Sequence[str]]
"""Cluster location → full host names of its schedds."""


@attrs.frozen
class NewWorkflow:
    """Everything that one request makes."""

    workflow: Document
    task_directives: list[Document]
    taskforces: list[Document]
    mqprofiles: list[Document]


def make_workflow(request: WorkflowRequest, locations: Locations, now: float) -> NewWorkflow:
    """The documents of a new workflow: a taskforce for each task and schedd, a queue for each alias.

    Raises:
        Problem: 400, for a location or a public alias that does not exist.
    """
    _check(request, locations)
    workflow = {
        "workflow_id": f"WF-{int(now):08x}-{secrets.token_hex(4)}",
        "timestamp": now,
        "priority": request.priority,
        "mq_activated_ts": None,
        "deactivated": None,
        "deactivated_ts": None,
    }
    directives = [_directive(workflow, task, now) for task in request.tasks]
    taskforces = [
        _taskforce(workflow, directive, task, schedd, now)
        for directive, task in zip(directives, request.tasks, strict=True)
        for location in task.cluster_locations
        for schedd in locations[location]
    ]
    profiles = [_profile(workflow, alias, request, now) for alias in _aliases(request.tasks)]
    return NewWorkflow(workflow, directives, taskforces, profiles)


def _check(request: WorkflowRequest, locations: Locations) -> None:
    if not request.tasks:
        raise Problem(400, "a workflow needs at least one task")
    asked = {location for task in request.tasks for location in task.cluster_locations}
    if unknown := sorted(asked - set(locations)):
        raise Problem(400, f"unknown cluster location {unknown[0]!r}; known: {', '.join(locations) or 'none'}")
    if strays := sorted(set(request.public_queue_aliases) - set(_aliases(request.tasks))):
        raise Problem(400, f"public queue alias {strays[0]!r} is not a queue of any task")


def _aliases(tasks: Iterable[TaskRequest]) -> list[str]:
    return list(
        dict.fromkeys(alias for task in tasks for alias in task.input_queue_aliases + task.output_queue_aliases)
    )


def _mqid(workflow: Document, alias: str) -> str:
    return f"{workflow['workflow_id']}-{alias}"


def _directive(workflow: Document, task: TaskRequest, now: float) -> Document:
    return {
        "task_id": f"TK-{workflow['workflow_id'][3:]}-{secrets.token_hex(4)}",
        "workflow_id": workflow["workflow_id"],
        "timestamp": now,
        "cluster_locations": list(task.cluster_locations),
        "task_image": task.task_image,
        "task_args": task.task_args,
        "task_env": dict(task.task_env),
        "init_image": task.init_image,
        "init_args": task.init_args,
        "init_env": dict(task.init_env),
        "input_queues": [_mqid(workflow, alias) for alias in task.input_queue_aliases],
        "output_queues": [_mqid(workflow, alias) for alias in task.output_queue_aliases],
    }


def _profile(workflow: Document, alias: str, request: WorkflowRequest, now: float) -> Document:
    return {
        "mqid": _mqid(workflow, alias),
        "workflow_id": workflow["workflow_id"],
        "timestamp": now,
        "alias": alias,
        "is_public": alias in request.public_queue_aliases,
        "is_activated": False,
        "auth_token": None,
        "broker_type": None,
        "broker_address": None,
    }


def _taskforce(workflow: Document, directive: Document, task: TaskRequest, schedd: str, now: float) -> Document:
    default_pilot: dict[str, Any] = {"tag": "latest", "image_source": "cvmfs", "environment": {}, "input_files": []}
    return {
        "taskforce_uuid": f"TF-{directive['task_id'][3:]}-{secrets.token_hex(4)}",
        "task_id": directive["task_id"],
        "workflow_id": workflow["workflow_id"],
        "timestamp": now,
        "priority": workflow["priority"],
        "collector": None,
        "schedd": schedd,
        "n_workers": task.n_workers,
        "worker_config": unstructure(task.worker_config),
        "pilot_config": unstructure(task.pilot_config) if task.pilot_config else default_pilot,
        "cluster_id": None,
        "submit_dict": {},
        "job_event_log_fpath": "",
        "phase": str(Phase.PRE_MQ_ACTIVATION),
        "phase_change_log": [
            {
                "target_phase": str(Phase.PRE_MQ_ACTIVATION),
                "timestamp": now,
                "source_event_time": None,
                "was_successful": True,
                "source_entity": "USER",
                "context": "Created during initial workflow request.",
            }
        ],
        "compound_statuses": {},
        "top_task_errors": {},
    }
