"""The REST client: one method for each call of the TMS; the only importer of httpx.

What every call shares:

- Transient faults (no connection, no answer within `timeout`, 5xx, 408, 429, no token to be had) are retried inside,
  with capped, jittered backoff, for as long as the caller's scope lives (see `Retry`).
- Everything else is raised at once: `WMSNotFound`, `WMSRefused`, `WMSMalformed`.
- An answer may be lost after the WMS acted. Repeating is harmless for reads and for statuses (a snapshot). The calls
  that add to a taskforce's log (`start_failed`, `stop_failed`, `complete`) look into that log before a repetition.
  `confirm_start` cannot be told apart here: see its 404.
- An attempt that nobody answered may be acted upon later, after newer calls. Who sends what a late one would overwrite
  is told of it (`Doubt`).
- Cancelling a call leaves open whether the WMS acted.
"""

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import structlog
import trio

from ewms.wms import raw
from ewms.wms.answers import Answer, judge
from ewms.wms.auth import Auth, Tokens
from ewms.wms.converter import read
from ewms.wms.errors import WMSError, WMSMalformed, WMSUnavailable
from ewms.wms.models import CompoundStatuses, StartOrder, Taskforce, TopTaskErrors
from ewms.wms.retry import Retry, until_answered

log = structlog.stdlib.get_logger(__name__)

Batch = tuple[Mapping[str, CompoundStatuses], Mapping[str, TopTaskErrors]]
"""Statuses and errors by taskforce UUID."""
Observe = Callable[[str, type[WMSError] | None, float], None]
"""Watches the client: the call (method and path), what it ended with (None: an answer), and how long it took, in s."""

Doubt = Callable[[Collection[str]], None]
"""Told of each attempt that may be acted upon yet (`WMSUnavailable.is_open`): the taskforces that it is about."""


def _nobody(_call: str, _fault: type[WMSError] | None, _seconds: float) -> None:
    pass


def _untold(_uuids: Collection[str]) -> None:
    pass


# A proxy from the environment is not meant for a stand on this very machine.
_NO_PROXY: Final = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))


@asynccontextmanager
async def open_wms(
    address: str,
    auth: Auth | None,
    *,
    timeout: float = 30,  # noqa: ASYNC109  of each attempt, not of a call
    retry: Retry | None = None,
    observe: Observe = _nobody,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator["WMS"]:
    """A client of the WMS at `address` (`EWMS_ADDRESS`); `auth=None` sends no token, for local stands only.

    `timeout` bounds each single attempt, in s. Nothing is connected before the first call. `observe` is told of every
    attempt, those that are repeated included. `transport` carries the requests in place of the network (for tests).

    Raises:
        ValueError: `address` or the token URL is not an http(s) URL.
    """
    for url in (address, *((auth.token_url,) if auth else ())):
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
    # Deadlines are Trio's own, over the whole exchange.
    async with httpx.AsyncClient(timeout=None, mounts=_NO_PROXY, transport=transport) as http:  # noqa: S113
        sender = _Sender(http, timeout)
        tokens = Tokens(auth, sender.fetch) if auth else None
        try:
            yield WMS(address, sender, tokens, retry or Retry(), observe)
        finally:
            if tokens:
                tokens.close()


class WMS:
    """The calls of the TMS; made by `open_wms`. Any number of tasks may use it at once."""

    def __init__(self, address: str, sender: "_Sender", tokens: Tokens | None, retry: Retry, observe: Observe) -> None:
        self._base = address.rstrip("/") + "/v1"
        self._sender = sender
        self._tokens = tokens
        self._retry = retry
        self._observe = observe

    async def check_token(self) -> None:
        """Get a token (or see that the one at hand is good), and call nothing; at once where none is asked for.

        Raises:
            WMSUnavailable: the issuer is out of reach or answers nonsense.
            WMSUnauthorized: it refuses our credentials.
        """
        if self._tokens is not None:
            await until_answered("token", self._tokens.get, self._retry)

    # --- orders ---

    async def next_start_order(self, schedd: str) -> StartOrder | None:
        """The next taskforce to start at this schedd; the same one again until it is confirmed or failed.

        Raises:
            WMSMalformed: with its `taskforce_uuid` where that can be read, for `start_failed`.
        """
        value = await self._call("GET", "/tms/pending-starter/taskforces", query={"schedd": schedd})
        return None if value == {} else read(StartOrder, value, "start order")

    async def next_stop_order(self, schedd: str) -> Taskforce | None:
        """The next taskforce whose cluster is to be removed; the same one again until that is confirmed.

        Raises:
            WMSMalformed: with its `taskforce_uuid` where that can be read, for `stop_failed`.
        """
        value = await self._call("GET", "/tms/pending-stopper/taskforces", query={"schedd": schedd})
        return None if value == {} else read(Taskforce, value, "stop order")

    async def taskforce(self, uuid: str) -> Taskforce:
        """The taskforce as the WMS sees it now.

        Raises:
            WMSNotFound: the WMS does not know it.
        """
        return read(Taskforce, await self._call("GET", _path("/taskforces", uuid)), "taskforce")

    # --- starting ---

    async def confirm_start(
        self,
        uuid: str,
        *,
        cluster_id: int,
        n_workers: int,
        submit_dict: Mapping[str, str | int],
        job_event_log_fpath: str,
    ) -> None:
        """Say that the cluster exists.

        Raises:
            WMSNotFound: the taskforce is not `pending-starter`: it was aborted meanwhile, or an earlier confirm of
                ours arrived and only its answer was lost. Ask `taskforce`: with our own `cluster_id` it is confirmed;
                with null or another one, or if that raises `WMSNotFound` too, remove the new cluster.
        """
        body = {
            "cluster_id": cluster_id,
            "n_workers": n_workers,
            "submit_dict": dict(submit_dict),
            "job_event_log_fpath": job_event_log_fpath,
        }
        await self._call("POST", _path("/tms/condor-submit/taskforces", uuid), body=body)

    async def start_failed(self, uuid: str, error: str) -> None:
        """Say that one attempt at starting failed; each call counts, after three the WMS gives up.

        Raises:
            WMSNotFound: the WMS does not know the taskforce.
        """
        await self._fail(uuid, "condor-submit", error)

    # --- stopping ---

    async def confirm_stop(self, uuid: str, doubt: Doubt = _untold) -> None:
        """Say that the removal was accepted. The WMS takes it in any phase: never send it after `complete`."""
        path = _path("/tms/condor-rm/taskforces", uuid)

        async def attempt() -> None:
            with _doubted(doubt, {uuid}):
                await self._attempt("POST", path)

        await until_answered(f"POST {path}", attempt, self._retry)

    async def stop_failed(self, uuid: str, error: str) -> None:
        """Say that one attempt at removing the cluster failed; each call counts."""
        await self._fail(uuid, "condor-rm", error)

    # --- reporting ---

    async def complete(self, uuid: str, *, condor_complete_ts: int) -> None:
        """Say that the cluster has ended, whatever way, at this time (epoch s). To be sent once."""
        await self._call_once(
            uuid,
            _path("/tms/condor-complete/taskforces", uuid),
            {"condor_complete_ts": condor_complete_ts},
            lambda taskforce: raw.is_completed(taskforce, condor_complete_ts),
        )

    async def send_statuses(
        self, statuses: Mapping[str, CompoundStatuses], errors: Mapping[str, TopTaskErrors]
    ) -> frozenset[str]:
        """Send one atomic batch (taskforce UUID → …); returns the UUIDs that the WMS does not know.

        Without any entry nothing is sent. It is a snapshot: a caller may cancel it and send a newer one.
        """
        return await self.send_newest_statuses(lambda: (statuses, errors))

    async def send_newest_statuses(self, newest: Callable[[], Batch], doubt: Doubt = _untold) -> frozenset[str]:
        """As `send_statuses`, but each attempt sends what `newest` gives then: nothing stale after an outage."""
        path = "/tms/statuses/taskforces"

        async def attempt() -> frozenset[str]:
            statuses, errors = newest()
            batch = {"compound_statuses_by_taskforce": statuses, "top_task_errors_by_taskforce": errors}
            body = {key: entries for key, entries in batch.items() if entries}
            if not body:
                return frozenset()
            uuids = {*statuses, *errors}
            with _doubted(doubt, uuids):
                unknown = raw.failed_uuids(await self._attempt("POST", path, body=body))
            log.debug("statuses sent", taskforces=len(uuids), unknown=len(unknown))
            return unknown

        return await until_answered(f"POST {path}", attempt, self._retry)

    async def query_taskforces(self, query: Mapping[str, Any], projection: Sequence[str]) -> list[dict[str, Any]]:
        """Every taskforce that matches the MongoDB filter, all pages of them, each with the fields asked for.

        One of which a field makes no sense is told and left out.
        """
        found: list[dict[str, Any]] = []
        body: dict[str, Any] = {"query": query, "projection": list(projection)}
        while True:
            page = await self._call("POST", "/query/taskforces", body=body)
            taskforces, after = raw.read_page(page)
            found += [each for each in taskforces if _makes_sense(each, projection)]
            if after is None:
                log.debug("taskforces queried", found=len(found))
                return found
            if after == body.get("after"):
                raise WMSMalformed("page", ["next_after is the same again: paging would not end"])
            body["after"] = after

    # --- how ---

    async def _fail(self, uuid: str, target: str, error: str) -> None:
        path = _path("/taskforces", uuid)
        before = raw.count_failures(await self._call("GET", path), target)
        await self._call_once(
            uuid,
            _path(f"/tms/{target}/taskforces", uuid, "/failed"),
            {"error": error},
            lambda taskforce: raw.count_failures(taskforce, target) > before,
        )

    async def _call_once(
        self, uuid: str, path: str, body: Mapping[str, Any], has_arrived: Callable[[Any], bool]
    ) -> None:
        """A POST that is repeated only when the taskforce's log shows that it has not arrived."""
        is_repetition = False

        async def attempt() -> None:
            nonlocal is_repetition
            if is_repetition and has_arrived(await self._attempt("GET", _path("/taskforces", uuid))):
                log.info("the WMS acted, only its answer was lost", call=f"POST {path}")
                return
            is_repetition = True
            await self._attempt("POST", path, body=body)

        await until_answered(f"POST {path}", attempt, self._retry)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        return await until_answered(
            f"{method} {path}", lambda: self._attempt(method, path, query=query, body=body), self._retry
        )

    async def _attempt(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        call, started = f"{method} {path}", trio.current_time()
        try:
            value = await self._exchange(method, path, query, body)
        except WMSError as error:
            self._observe(call, type(error), trio.current_time() - started)
            raise
        self._observe(call, None, trio.current_time() - started)
        return value

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> Any:
        token = await self._tokens.get() if self._tokens else None
        answer = await self._send(method, path, query, body, token)
        # A role that was given to us since (403) is in a new token only.
        if answer.status in (401, 403) and self._tokens and token:
            answer = await self._send(method, path, query, body, await self._tokens.renew(token))
        return judge(f"{method} {path}", answer)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        token: str | None,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = _encode(body)
        return await self._sender.send(method, self._base + path, params=query, headers=headers, content=content)


_NOT_SENT: Final = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.ConnectError, httpx.ProxyError, ValueError)
"""ValueError: a host, or a token, that no request can carry."""


class _Sender:
    """One HTTP exchange with a deadline; the one place that maps httpx's errors to ours."""

    def __init__(self, http: httpx.AsyncClient, timeout: float) -> None:
        self._http = http
        self._timeout = timeout

    async def fetch(self, url: str, form: Mapping[str, str] | None) -> Answer:
        return await self.send("GET" if form is None else "POST", url, data=form)

    async def send(self, method: str, url: str, **more: Any) -> Answer:
        where = f"{method} {url.partition('?')[0]}"
        try:
            with trio.fail_after(self._timeout):
                response = await self._http.request(method, url, **more)
        except trio.TooSlowError:
            raise WMSUnavailable(f"{where}: no answer within {self._timeout:g} s", is_open=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            is_open = not isinstance(error, _NOT_SENT)
            raise WMSUnavailable(f"{where}: {type(error).__name__}: {error}", is_open=is_open) from error
        return Answer(response.status_code, response.content, dict(response.headers))


@contextmanager
def _doubted(doubt: Doubt, uuids: Collection[str]) -> Iterator[None]:
    """Tell of this attempt about these taskforces where it ends without an answer."""
    try:
        yield
    except WMSUnavailable as error:
        if error.is_open:
            doubt(uuids)
        raise


def _makes_sense(taskforce: Mapping[str, Any], projection: Sequence[str]) -> bool:
    problem = raw.misfit(taskforce, projection)
    if problem is not None:
        log.error(
            "the WMS lists a taskforce that makes no sense", taskforce=taskforce.get("taskforce_uuid"), error=problem
        )
    return problem is None


def _path(prefix: str, uuid: str, suffix: str = "") -> str:
    return f"{prefix}/{quote(uuid, safe='')}{suffix}"


def _encode(body: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair (from a log with stray bytes) is no UTF-8: one bad text must not poison a whole batch.
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
