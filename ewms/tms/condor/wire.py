"""The JSON lines between the TMS and a helper process (`base.py`): bytes ↔ requests and replies (pure)."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

import attrs

ErrorKind = Literal["refused", "unreachable", "bug"]
KINDS: Final = frozenset({"refused", "unreachable", "bug"})


class WireError(Exception):
    """A line that is not what the protocol says."""


@attrs.frozen
class Request:
    """One call of the TMS."""

    id: int
    call: str
    args: Mapping[str, Any]


@attrs.frozen
class Failure:
    """The answer "no": `kind` is one of `KINDS`."""

    kind: ErrorKind
    message: str
    trace: str = ""


@attrs.frozen
class Reply:
    """The answer to the request `id` (None: the request could not even be read)."""

    id: int | None
    value: Any = None
    failure: Failure | None = None


def encode_request(request: Request) -> bytes:
    """One line, newline included."""
    return _line({"id": request.id, "call": request.call, "args": dict(request.args)})


def decode_request(line: bytes) -> Request:
    """Raise `WireError` for what is not a request."""
    match _object(line):
        case {"id": int(id_), "call": str(call), "args": dict(args)}:
            return Request(id_, call, args)
    raise WireError(f"not a request: {_shown(line)}")


def encode_reply(reply: Reply) -> bytes:
    """One line, newline included."""
    if reply.failure is None:
        return _line({"id": reply.id, "ok": reply.value})
    trace = {"trace": reply.failure.trace} if reply.failure.trace else {}
    return _line({"id": reply.id, "error": {"kind": reply.failure.kind, "message": reply.failure.message, **trace}})


def decode_reply(line: bytes) -> Reply:
    """Raise `WireError` for what is not a reply."""
    match _object(line):
        case {"id": int() | None as id_, "ok": value}:
            return Reply(id_, value=value)
        case {"id": int() | None as id_, "error": {"kind": str(kind), "message": str(message), **more}} if (
            kind in KINDS
        ):
            return Reply(id_, failure=Failure(cast("ErrorKind", kind), message, str(more.get("trace", ""))))
    raise WireError(f"not a reply: {_shown(line)}")


def misfit(call: Callable[..., Any], args: Mapping[str, Any]) -> str | None:
    """Why `args` do not fit the parameters of `call`, or None when they do."""
    try:
        inspect.signature(call).bind(**args)
    except TypeError as error:
        return str(error)
    return None


def _line(message: Mapping[str, Any]) -> bytes:
    # ASCII escapes: the line cannot hold a newline of its own, nor bytes that are not UTF-8.
    return json.dumps(message, allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {_shown(line)}") from error


def _shown(line: bytes) -> str:
    return repr(line[:200])
