"""The stand-in's routes: HTTP to `State` and back."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ewms.testing.wms import phases, schema
from ewms.testing.wms.faults import CONTROL_PREFIX, Fault, Faults
from ewms.testing.wms.problems import Problem
from ewms.testing.wms.state import Deactivation, State
from ewms.testing.wms.store import Kind
from ewms.testing.wms.tokens import TokenIssuer

REALM_PATH: Final = "/auth/realms/standin"
_TOKEN_PATH: Final = f"{REALM_PATH}/protocol/openid-connect/token"

Launch = Callable[[str], Awaitable[None]]
"""Brings a new workflow (by id) on its way."""

_Answer = tuple[int, Any]
_Call = Callable[[Request], Awaitable[_Answer]]


def make_app(state: State, faults: Faults, issuer: TokenIssuer, launch: Launch, *, needs_token: bool) -> Starlette:
    """The application; with `needs_token=False` every call is taken from everybody."""
    judge = issuer if needs_token else None
    api = [
        Route("/v1" + path, _endpoint(call, judge), methods=[method])
        for (method, path), call in _calls(state, launch).items()
    ]
    return Starlette(
        routes=[*api, *_issuer_routes(issuer), *_control_routes(faults, issuer)],
        exception_handlers={HTTPException: _on_http_exception, Problem: _on_problem},
    )


def _calls(state: State, launch: Launch) -> dict[tuple[str, str], _Call]:
    """Every call of the contract: (method, path behind /v1) → what answers it."""
    one = "/taskforces/{id}"
    return {
        ("GET", "/tms/pending-starter/taskforces"): _get(lambda request: state.next_to_start(request.query_params)),
        ("GET", "/tms/pending-stopper/taskforces"): _get(lambda request: state.next_to_stop(request.query_params)),
        ("GET", one): _get(lambda request: state.taskforce_document(_id(request))),
        ("POST", f"/tms/condor-submit{one}"): _step(state, schema.StartConfirmed, phases.START_CONFIRMED),
        ("POST", f"/tms/condor-submit{one}/failed"): _step(state, schema.Failed, phases.START_FAILED),
        ("POST", f"/tms/condor-rm{one}"): _step(state, schema.Nothing, phases.STOP_CONFIRMED),
        ("POST", f"/tms/condor-rm{one}/failed"): _step(state, schema.Failed, phases.STOP_FAILED),
        ("POST", f"/tms/condor-complete{one}"): _step(state, schema.Completed, phases.COMPLETED),
        ("POST", "/tms/statuses/taskforces"): _statuses(state),
        ("POST", "/workflows"): _create_workflow(state, launch),
        ("GET", "/workflows/{id}"): _get(lambda request: state.workflow(_id(request))),
        ("POST", "/workflows/{id}/actions/finished"): _deactivate(state, "FINISHED"),
        ("POST", "/workflows/{id}/actions/abort"): _deactivate(state, "ABORTED"),
        ("POST", "/query/workflows"): _query(state, "workflows"),
        ("POST", "/query/taskforces"): _query(state, "taskforces"),
        ("POST", "/query/task-directives"): _query(state, "task_directives"),
    }


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _get(answer: Callable[[Request], Any]) -> _Call:
    async def call(request: Request) -> _Answer:
        return 200, answer(request)

    return call


def _step(state: State, body_class: type[Any], step: phases.Step) -> _Call:
    async def call(request: Request) -> _Answer:
        body = schema.parse(body_class, await request.body())
        return 200, state.advance(_id(request), step, **_details(body))

    return call


def _details(body: Any) -> dict[str, Any]:
    """What a TMS's call changes in the taskforce, or adds to its log."""
    match body:
        case schema.Failed(error):
            return {"context": error}
        case schema.Completed(timestamp):
            return {"source_event_time": timestamp}
        case _:
            return dict(schema.unstructure(body))


def _statuses(state: State) -> _Call:
    async def call(request: Request) -> _Answer:
        return state.set_statuses(schema.parse(schema.Statuses, await request.body()))

    return call


def _create_workflow(state: State, launch: Launch) -> _Call:
    async def call(request: Request) -> _Answer:
        answer = state.create_workflow(schema.parse(schema.WorkflowRequest, await request.body()))
        await launch(answer["workflow"]["workflow_id"])
        return 200, answer

    return call


def _deactivate(state: State, how: Deactivation) -> _Call:
    async def call(request: Request) -> _Answer:
        schema.parse(schema.Nothing, await request.body())
        return 200, state.deactivate(_id(request), how)

    return call


def _query(state: State, kind: Kind) -> _Call:
    async def call(request: Request) -> _Answer:
        return 200, state.query(kind, schema.parse(schema.Query, await request.body()))

    return call


def _endpoint(call: _Call, issuer: TokenIssuer | None) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if issuer:
            issuer.check(request.headers.get("authorization", ""))
        status, answer = await call(request)
        return JSONResponse(answer, status_code=status)

    return endpoint


# --- the issuer ---


def _issuer_routes(issuer: TokenIssuer) -> list[Route]:
    async def discovery(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        return JSONResponse({"issuer": base + REALM_PATH, "token_endpoint": base + _TOKEN_PATH})

    async def token(request: Request) -> Response:
        form: Mapping[str, str] = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        try:
            return JSONResponse(issuer.grant(form), headers={"Cache-Control": "no-store"})
        except Problem as problem:  # OAuth2's form of an error, not the WMS's
            return JSONResponse({"error": problem.error}, status_code=problem.status)

    return [
        Route(f"{REALM_PATH}/.well-known/openid-configuration", discovery),
        Route(_TOKEN_PATH, token, methods=["POST"]),
    ]


# --- control: no token, so that a fault can always be switched off ---


def _control_routes(faults: Faults, issuer: TokenIssuer) -> list[Route]:
    def answer() -> Response:
        return JSONResponse({"faults": [attrs.asdict(each) for each in faults.active()]})

    async def show(_request: Request) -> Response:
        return answer()

    async def add(request: Request) -> Response:
        faults.add(schema.parse(Fault, await request.body()))
        return answer()

    async def clear(_request: Request) -> Response:
        faults.clear()
        return answer()

    async def revoke(_request: Request) -> Response:
        issuer.revoke_all()
        return JSONResponse({})

    handlers = {"GET": show, "POST": add, "DELETE": clear}
    routes = [Route(f"{CONTROL_PREFIX}/faults", handler, methods=[method]) for method, handler in handlers.items()]
    return [*routes, Route(f"{CONTROL_PREFIX}/tokens", revoke, methods=["DELETE"])]


# --- errors ---


def _error(status: int, error: str) -> JSONResponse:
    return JSONResponse({"code": status, "error": error}, status_code=status)


async def _on_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return _error(problem.status, problem.error)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)
