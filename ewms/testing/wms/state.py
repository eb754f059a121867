"""What each call of the WMS does. Synchronous, so that every call is atomic."""

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, Literal

import attrs

from ewms.secret import Secret
from ewms.testing.wms import phases, schema
from ewms.testing.wms.filters import BadFilter, matches, project
from ewms.testing.wms.phases import Document, Step
from ewms.testing.wms.problems import Problem
from ewms.testing.wms.store import Kind, Store
from ewms.testing.wms.workflows import Locations, make_workflow
from ewms.wms.converter import read
from ewms.wms.models import Phase, Taskforce

Deactivation = Literal["FINISHED", "ABORTED"]

_NO_SCHEDD: Final = "the query argument 'schedd', and no other, is needed"


@attrs.frozen
class Queues:
    """What every queue is activated with."""

    broker_type: str = "rabbitmq"
    broker_address: str = "localhost"
    auth_token: Secret = Secret("")


@attrs.frozen
class State:
    """The WMS's data and what happens to it; tests may look and act here, the REST calls do nothing else."""

    store: Store
    locations: Locations
    queues: Queues
    page_size: int

    # --- for tests ---

    def taskforce(self, uuid: str) -> Taskforce:
        """The taskforce, typed."""
        return read(Taskforce, self.taskforce_document(uuid), "taskforce")

    def taskforces(self) -> list[Taskforce]:
        """Every taskforce, typed, oldest first."""
        return [read(Taskforce, each, "taskforce") for each in self.store.all("taskforces")]

    # --- the user's calls ---

    def create_workflow(self, request: schema.WorkflowRequest) -> dict[str, Any]:
        """`POST /workflows`."""
        new = make_workflow(request, self.locations, time.time())
        self.store.save(
            [
                ("workflows", new.workflow),
                *(("task_directives", each) for each in new.task_directives),
                *(("mqprofiles", each) for each in new.mqprofiles),
                *(("taskforces", each) for each in new.taskforces),
            ]
        )
        return {"workflow": new.workflow, "task_directives": new.task_directives, "taskforces": new.taskforces}

    def workflow(self, workflow_id: str) -> Document:
        """`GET /workflows/{id}`."""
        return self._get("workflows", workflow_id)

    def deactivate(self, workflow_id: str, how: Deactivation) -> dict[str, Any]:
        """`POST /workflows/{id}/actions/…`: every open taskforce is to be stopped."""
        now = time.time()
        workflow = self.workflow(workflow_id)
        stopped = self._advance_all(workflow_id, phases.STOP_ASKED, now, context=how)
        self.store.save([("workflows", {**workflow, "deactivated": how, "deactivated_ts": now}), *stopped])
        return {"workflow_id": workflow_id, "n_taskforces": len(stopped)}

    def query(self, kind: Kind, query: schema.Query) -> dict[str, Any]:
        """`POST /query/…`: one page."""
        documents = self.store.all(kind)
        try:
            start = int(query.after) if query.after is not None else 0
            candidates = enumerate(documents[start:], start)
            hits = (
                (number, project(each, query.projection)) for number, each in candidates if matches(each, query.query)
            )
            found = list(islice(hits, self.page_size))
        except BadFilter as error:
            raise Problem(400, str(error)) from None
        except ValueError:
            raise Problem(400, f"{query.after!r} is not an `after` that this WMS gave") from None
        # A full page may be the last one: the caller learns that from the empty page after it.
        next_after = str(found[-1][0] + 1) if len(found) == self.page_size else None
        return {kind: [document for _, document in found], "next_after": next_after}

    # --- what the WMS does by itself ---

    def activate(self, workflow_id: str) -> None:
        """Make the workflow's queues known, unless it was deactivated meanwhile."""
        now = time.time()
        workflow = self.workflow(workflow_id)
        if workflow["deactivated"]:
            return
        profiles = [each for each in self.store.all("mqprofiles") if each["workflow_id"] == workflow_id]
        activated: dict[str, Any] = {
            "is_activated": True,
            "auth_token": self.queues.auth_token.reveal() or None,
            "broker_type": self.queues.broker_type,
            "broker_address": self.queues.broker_address,
        }
        self.store.save(
            [
                ("workflows", {**workflow, "mq_activated_ts": now}),
                *(("mqprofiles", {**each, **activated}) for each in profiles),
                *self._advance_all(workflow_id, phases.MQ_ACTIVATED, now),
            ]
        )

    def launch(self, workflow_id: str) -> None:
        """Offer the workflow's taskforces to their schedds."""
        self.store.save(self._advance_all(workflow_id, phases.LAUNCHED, time.time()))

    def not_launched(self) -> list[str]:
        """Workflows (by id) that an earlier run left on their way."""
        waiting = (Phase.PRE_MQ_ACTIVATION, Phase.PRE_LAUNCH)
        return list(dict.fromkeys(e["workflow_id"] for e in self.store.all("taskforces") if e["phase"] in waiting))

    # --- the TMS's calls ---

    def next_to_start(self, arguments: Mapping[str, str]) -> dict[str, Any]:
        """`GET /tms/pending-starter/taskforces`."""
        taskforce = phases.next_to_start(self.store.all("taskforces"), _schedd(arguments))
        if taskforce is None:
            return {}
        directive = self._get("task_directives", taskforce["task_id"])
        mqids = dict.fromkeys(directive["input_queues"] + directive["output_queues"])
        return {
            "taskforce": taskforce,
            "task_directive": directive,
            "mqprofiles": [self._get("mqprofiles", mqid) for mqid in mqids],
        }

    def next_to_stop(self, arguments: Mapping[str, str]) -> dict[str, Any]:
        """`GET /tms/pending-stopper/taskforces`."""
        return phases.next_to_stop(self.store.all("taskforces"), _schedd(arguments)) or {}

    def taskforce_document(self, uuid: str) -> Document:
        """`GET /taskforces/{uuid}`."""
        return self._get("taskforces", uuid)

    def advance(self, uuid: str, step: Step, **details: Any) -> dict[str, Any]:
        """Every POST of the TMS that is about one taskforce."""
        self.store.save([("taskforces", phases.advance(self.taskforce_document(uuid), step, time.time(), **details))])
        return {"taskforce_uuid": uuid}

    def set_statuses(self, statuses: schema.Statuses) -> tuple[int, dict[str, Any]]:
        """`POST /tms/statuses/taskforces`: the HTTP status and the answer."""
        compounds = schema.unstructure(statuses.compound_statuses_by_taskforce) or {}
        errors = schema.unstructure(statuses.top_task_errors_by_taskforce) or {}
        results: list[dict[str, str]] = []
        changes: list[tuple[Kind, Document]] = []
        for uuid in dict.fromkeys([*compounds, *errors]):
            taskforce = self.store.get("taskforces", uuid)
            if taskforce is None:
                results.append({"uuid": uuid, "status": "failed", "error": "no such taskforce"})
                continue
            results.append({"uuid": uuid, "status": "updated"})
            news = {
                key: given[uuid]
                for key, given in (("compound_statuses", compounds), ("top_task_errors", errors))
                if uuid in given
            }
            changes.append(("taskforces", {**taskforce, **news}))
        self.store.save(changes)
        return (200, {}) if len(changes) == len(results) else (207, {"results": results})

    # --- how ---

    def _get(self, kind: Kind, id_: str) -> Document:
        if (document := self.store.get(kind, id_)) is None:
            raise Problem(404, f"no {kind.removesuffix('s').replace('_', ' ')} {id_}")
        return document

    def _advance_all(self, workflow_id: str, step: Step, now: float, **details: Any) -> list[tuple[Kind, Document]]:
        return [
            ("taskforces", phases.advance(each, step, now, **details))
            for each in self.store.all("taskforces")
            if each["workflow_id"] == workflow_id and phases.is_taken(each, step)
        ]


def _schedd(arguments: Mapping[str, str]) -> str:
    if set(arguments) != {"schedd"} or not arguments["schedd"]:
        raise Problem(400, _NO_SCHEDD)
    return arguments["schedd"]
