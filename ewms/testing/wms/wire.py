"""Between the server and the application: every request is recorded, and faults act here."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs
import structlog
import trio
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ewms.testing.wms.faults import CONTROL_PREFIX, Fault, Faults

log = structlog.stdlib.get_logger(__name__)

# A body that is promised and never comes: hypercorn closes the connection then.
_CUT: Final[Message] = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]}


@attrs.define
class Request:
    """One call as it came in; it is on record before it is acted upon."""

    method: str
    path: str
    query: str
    body: Any = attrs.field(repr=False)
    """The JSON value; None if there was none."""
    fault: Fault
    status: int | None = None
    """The status that the caller got; None: not answered (yet), or its connection was cut."""


class Observer(Protocol):
    """Sees every call at the moments between which the WMS acts, and may hold it there."""

    async def arrived(self, request: Request) -> None:
        """It is on record, and not yet acted upon."""

    async def acted(self, request: Request, status: int, answer: bytes) -> bool:
        """The WMS has acted, this would be its answer; False loses it: the connection is cut."""


class Wire:
    """An ASGI application around another one."""

    def __init__(
        self, app: ASGIApp, faults: Faults, requests: deque[Request], observer: Observer | None = None
    ) -> None:
        self._app = app
        self._faults = faults
        self._requests = requests
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the server's own start and stop messages)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        fault = self._faults.take(scope["method"], scope["path"])
        request = _record(scope, body, fault)
        if not request.path.startswith(CONTROL_PREFIX):
            self._requests.append(request)
        messages = await self._answer(scope, body, request)
        request.status = int(messages[0]["status"]) if messages else None
        log.info("request", method=request.method, path=request.path, status=request.status, fault=_describe(fault))
        for message in messages or [_CUT]:
            await send(message)

    async def _answer(self, scope: Scope, body: bytes, request: Request) -> list[Message]:
        """What goes back; nothing at all when the connection is to be cut."""
        fault = request.fault
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        if not fault.after:
            await trio.sleep(fault.delay)
        if fault.after or not fault.replaces_answer:
            if self._observer:
                await self._observer.arrived(request)
            await self._app(scope, _replay(body), keep)
            if self._observer and not await self._observer.acted(request, int(messages[0]["status"]), _body(messages)):
                return []
        if fault.after:
            await trio.sleep(fault.delay)
        if fault.replaces_answer:
            messages.clear()
        if fault.replaces_answer and not fault.drop:
            await _instead(fault)(scope, _replay(b""), keep)
        return messages


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _body(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def _instead(fault: Fault) -> Response:
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
    if fault.answer is not None:
        return Response(fault.answer, fault.status or 200, headers, media_type="application/json")
    body = {"code": fault.status, "error": "a fault that was switched on"}
    return JSONResponse(body, status_code=fault.status or 500, headers=headers)


def _record(scope: Scope, body: bytes, fault: Fault) -> Request:
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    is_json = headers.get(b"content-type", b"").startswith(b"application/json")  # never a form with a secret
    try:
        value = json.loads(body) if is_json else None
    except ValueError:
        value = None
    return Request(scope["method"], scope["path"], scope["query_string"].decode(), value, fault)


def _describe(fault: Fault) -> str | None:
    if fault == Fault():
        return None
    if fault.drop:
        return "drop"
    if fault.answer is not None:
        return "another answer"
    return f"status {fault.status}" if fault.status else f"delay {fault.delay:g} s"
