"""The WMS client against the stand-in, over real HTTP: every call, every trap, every fault.

Real sockets need real time, so that backoffs are tiny here; the waiting itself is tested in tests/unit/wms.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import pytest
import trio

from ewms.secret import Secret
from ewms.testing.wms import Fault, Request, Standin, open_standin
from ewms.testing.wms.schema import WorkflowRequest, structure
from ewms.wms.auth import Auth
from ewms.wms.client import WMS, open_wms
from ewms.wms.errors import WMSMalformed, WMSNotFound, WMSRefused, WMSUnauthorized, WMSUnavailable
from ewms.wms.models import Phase, StartOrder
from ewms.wms.retry import Retry

CAPTURED: Final = Path(__file__).parents[1] / "data" / "wms" / "start-order.json"
QUICK: Final = Retry(first=0.001, cap=0.01)
TOKEN: Final = "queue-token-for-tests"
SCHEDD: Final = "ap.example.org"
PATIENCE: Final = 60

WORKER_CONFIG: Final = {
    "do_transfer_worker_stdouterr": True,
    "max_worker_runtime": 600,
    "n_cores": 1,
    "priority": 50,
    "worker_disk": "1 GB",
    "worker_memory": 1024,
    "condor_requirements": "",
}
TASK: Final = {
    "cluster_locations": ["demo"],
    "input_queue_aliases": ["in"],
    "output_queue_aliases": ["out"],
    "task_image": "/images/task",
    "task_args": "cp {{INFILE}} {{OUTFILE}}",
    "n_workers": 4,
    "worker_config": WORKER_CONFIG,
}


def workflow_request(*, tasks: int = 1, **changes: Any) -> dict[str, Any]:
    return {"public_queue_aliases": ["in", "out"], "tasks": [TASK] * tasks, **changes}


def serve(**options: Any) -> AbstractAsyncContextManager[Standin]:
    locations = {"demo": SCHEDD, "both": [SCHEDD, "other.example.org"]}
    return open_standin(locations=locations, broker_token=Secret(TOKEN), **options)


def client(standin: Standin, *, timeout: float = 5, retry: Retry = QUICK) -> AbstractAsyncContextManager[WMS]:
    auth = Auth(standin.token_url, standin.client_id, standin.client_secret)
    return open_wms(standin.address, auth, timeout=timeout, retry=retry)


@attrs.frozen
class User:
    """Somebody with a token and curl."""

    http: httpx.AsyncClient

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        response = await self.http.request(method, path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def workflow(self, **request: Any) -> dict[str, Any]:
        """Ask for one; returns the answer."""
        answer: dict[str, Any] = await self.call("POST", "/v1/workflows", workflow_request(**request))
        return answer

    async def taskforce(self, **request: Any) -> str:
        """Ask for a workflow with one taskforce; returns its UUID."""
        (taskforce,) = (await self.workflow(**request))["taskforces"]
        return str(taskforce["taskforce_uuid"])

    async def abort(self, uuid: str) -> None:
        taskforce = await self.call("GET", f"/v1/taskforces/{uuid}")
        await self.call("POST", f"/v1/workflows/{taskforce['workflow_id']}/actions/abort")


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with serve(page_size=5) as running:
        yield running


@pytest.fixture
async def wms(standin: Standin) -> AsyncIterator[WMS]:
    async with client(standin) as opened:
        yield opened


@pytest.fixture
async def user(standin: Standin) -> AsyncIterator[User]:
    header = {"Authorization": f"Bearer {standin.user_token()}"}
    async with httpx.AsyncClient(base_url=standin.address, headers=header) as http:
        yield User(http)


async def confirm(wms: WMS, uuid: str, cluster_id: int = 7) -> None:
    await wms.confirm_start(
        uuid, cluster_id=cluster_id, n_workers=4, submit_dict={"universe": "container"}, job_event_log_fpath="/log"
    )


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  a server's state has no event
            await trio.sleep(0.01)


def entries(standin: Standin, uuid: str, target: str, *, succeeded: bool = True) -> int:
    log = standin.state.taskforce(uuid).phase_change_log
    return sum(each.target_phase == target and each.was_successful is succeeded for each in log)


# --- every call, when all is well ---


async def test_a_taskforce_from_request_to_completion(standin: Standin, wms: WMS, user: User) -> None:
    assert await wms.next_start_order(SCHEDD) is None
    made = await user.workflow()
    order = await wms.next_start_order(SCHEDD)
    assert order is not None
    uuid = order.taskforce.taskforce_uuid
    assert uuid == made["taskforces"][0]["taskforce_uuid"]
    assert order.task_directive.input_queues == (f"{made['workflow']['workflow_id']}-in",)
    assert [(each.alias, each.auth_token) for each in order.mqprofiles] == [
        ("in", Secret(TOKEN)),
        ("out", Secret(TOKEN)),
    ]
    assert (await wms.next_start_order(SCHEDD)) == order  # the same again until it is confirmed
    assert await wms.next_start_order("other.example.org") is None
    assert (await wms.taskforce(uuid)).phase is Phase.PENDING_STARTER

    await confirm(wms, uuid)
    assert await wms.next_start_order(SCHEDD) is None
    assert await wms.next_stop_order(SCHEDD) is None
    taskforce = await wms.taskforce(uuid)
    assert (taskforce.phase, taskforce.cluster_id, taskforce.n_workers) == (Phase.CONDOR_SUBMIT, 7, 4)
    assert (taskforce.job_event_log_fpath, taskforce.submit_dict) == ("/log", {"universe": "container"})

    assert await wms.send_statuses({uuid: {"RUNNING": {"Tasking": 3, "null": 1}}}, {uuid: {"boom": 2}}) == frozenset()
    await user.call("POST", f"/v1/workflows/{made['workflow']['workflow_id']}/actions/finished")
    stop = await wms.next_stop_order(SCHEDD)
    assert stop is not None
    assert (stop.taskforce_uuid, stop.cluster_id) == (uuid, 7)
    await wms.confirm_stop(uuid)
    assert await wms.next_stop_order(SCHEDD) is None
    await wms.complete(uuid, condor_complete_ts=1_795_300_000)

    final = standin.state.taskforce(uuid)
    assert final.phase is Phase.CONDOR_COMPLETE
    assert final.compound_statuses == {"RUNNING": {"Tasking": 3, "null": 1}}
    assert final.top_task_errors == {"boom": 2}
    assert final.phase_change_log[-1].source_event_time == 1_795_300_000
    workflow = await user.call("GET", f"/v1/workflows/{made['workflow']['workflow_id']}")
    assert workflow["deactivated"] == "FINISHED"


def shape(value: Any) -> Any:
    """The keys of a JSON value, down to the config objects; what users name themselves is left out."""
    free = {"environment", "task_env", "init_env", "submit_dict", "compound_statuses", "top_task_errors"}
    if isinstance(value, dict):
        return {key: None if key in free else shape(each) for key, each in value.items()}
    return shape(value[0]) if isinstance(value, list) and value else None


async def test_a_start_order_has_the_keys_of_a_captured_one(user: User) -> None:
    captured = json.loads(CAPTURED.read_text())
    task = {**TASK, "pilot_config": captured["taskforce"]["pilot_config"]}
    await user.call("POST", "/v1/workflows", {**workflow_request(), "tasks": [task]})
    order = await user.call("GET", f"/v1/tms/pending-starter/taskforces?schedd={SCHEDD}")
    assert shape(order) == shape(captured)
    assert order["taskforce"]["pilot_config"] == captured["taskforce"]["pilot_config"]


async def test_every_page_of_a_query_is_read(standin: Standin, wms: WMS, user: User) -> None:
    await user.workflow(tasks=10)  # exactly two pages: an empty third one follows
    await user.workflow(tasks=2)
    found = await wms.query_taskforces({"schedd": SCHEDD}, ["taskforce_uuid", "cluster_id"])
    assert len({each["taskforce_uuid"] for each in found}) == 12
    assert all(each["cluster_id"] is None and len(each) == 2 for each in found)
    assert len(await wms.query_taskforces({"phase": {"$ne": "pending-starter"}}, ["taskforce_uuid"])) == 0
    queries = [each.body for each in standin.requests if each.path == "/v1/query/taskforces"]
    assert [("after" in body) for body in queries] == [False, True, True, False]


async def test_statuses_of_unknown_taskforces_are_named_and_the_others_kept(
    standin: Standin, wms: WMS, user: User
) -> None:
    uuid = await user.taskforce()
    unknown = await wms.send_statuses(
        {uuid: {"IDLE": {"null": 4}}, "TF-gone": {"IDLE": {"null": 1}}}, {"TF-too": {"x": 1}}
    )
    assert unknown == {"TF-gone", "TF-too"}
    assert standin.state.taskforce(uuid).compound_statuses == {"IDLE": {"null": 4}}
    (sent,) = [each for each in standin.requests if each.path == "/v1/tms/statuses/taskforces"]
    assert sent.status == 207


async def test_a_batch_has_only_keys_with_entries_and_an_empty_one_is_not_sent(
    standin: Standin, wms: WMS, user: User
) -> None:
    uuid = await user.taskforce()
    await wms.send_statuses({}, {})
    await wms.send_statuses({uuid: {}}, {})
    await wms.send_statuses({}, {uuid: {"half a surrogate \udc80": 1}})
    assert [set(each.body) for each in standin.requests if each.path == "/v1/tms/statuses/taskforces"] == [
        {"compound_statuses_by_taskforce"},
        {"top_task_errors_by_taskforce"},
    ]
    assert standin.state.taskforce(uuid).top_task_errors == {"half a surrogate ?": 1}


# --- traps ---


async def test_a_second_confirm_is_a_404_and_the_taskforce_tells_why(wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    await confirm(wms, uuid, cluster_id=7)
    with pytest.raises(WMSNotFound):
        await confirm(wms, uuid, cluster_id=7)
    assert (await wms.taskforce(uuid)).cluster_id == 7


async def test_a_confirm_after_an_abort_is_a_404_and_no_cluster_is_known(wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    await user.abort(uuid)
    with pytest.raises(WMSNotFound):
        await confirm(wms, uuid)
    taskforce = await wms.taskforce(uuid)
    assert (taskforce.phase, taskforce.cluster_id) == (Phase.PENDING_STOPPER, None)
    assert await wms.next_stop_order(SCHEDD) is None  # nobody will ever ask for its removal


async def test_unknown_taskforces_are_a_404_everywhere(wms: WMS) -> None:
    with pytest.raises(WMSNotFound):
        await wms.taskforce("TF-x")
    with pytest.raises(WMSNotFound):
        await confirm(wms, "TF-x")
    with pytest.raises(WMSNotFound):
        await wms.start_failed("TF-x", "no")
    with pytest.raises(WMSNotFound):
        await wms.confirm_stop("TF-x")
    with pytest.raises(WMSNotFound):
        await wms.stop_failed("TF-x", "no")
    with pytest.raises(WMSNotFound):
        await wms.complete("TF-x", condor_complete_ts=1)


async def test_three_strikes_and_a_start_is_offered_no_more(standin: Standin, wms: WMS, user: User) -> None:
    failing = await user.taskforce(priority=90)
    other = await user.taskforce(priority=10)
    for _ in range(3):
        order = await wms.next_start_order(SCHEDD)
        assert order is not None
        assert order.taskforce.taskforce_uuid == failing
        await wms.start_failed(failing, "image source 'x' is unknown")
    order = await wms.next_start_order(SCHEDD)
    assert order is not None
    assert order.taskforce.taskforce_uuid == other
    assert entries(standin, failing, "condor-submit", succeeded=False) == 3
    assert standin.state.taskforce(failing).phase_change_log[-1].context == "image source 'x' is unknown"


async def test_a_late_removal_overwrites_completion(wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    await confirm(wms, uuid)
    await wms.complete(uuid, condor_complete_ts=5)
    await wms.confirm_stop(uuid)
    assert (await wms.taskforce(uuid)).phase is Phase.CONDOR_RM


async def test_a_location_may_mean_several_schedds(wms: WMS, user: User) -> None:
    request = {**workflow_request(), "tasks": [{**TASK, "cluster_locations": ["both"]}]}
    made = await user.call("POST", "/v1/workflows", request)
    assert [each["schedd"] for each in made["taskforces"]] == [SCHEDD, "other.example.org"]


async def test_a_uuid_is_one_path_segment_whatever_is_in_it(standin: Standin, wms: WMS) -> None:
    with pytest.raises(WMSNotFound):
        await wms.taskforce("a/../b?c#d%2f")
    assert standin.requests[-1].path.startswith("/v1/taskforces/")
    assert standin.requests[-1].query == ""


# --- what a WMS of another version may send ---


async def test_unknown_keys_are_ignored(standin: Standin, wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    standin.state.taskforce_document(uuid).update(_id=5, new={"a": [1]})
    order = await wms.next_start_order(SCHEDD)
    assert isinstance(order, StartOrder)


async def test_a_malformed_start_order_names_its_taskforce_so_that_it_can_be_failed(
    standin: Standin, wms: WMS, user: User
) -> None:
    uuid = await user.taskforce()
    standin.state.taskforce_document(uuid)["n_workers"] = "four"
    with pytest.raises(
        WMSMalformed, match=r"expected a whole number, got a string @ \$\.taskforce\.n_workers"
    ) as caught:
        await wms.next_start_order(SCHEDD)
    assert caught.value.taskforce_uuid == uuid
    for _ in range(3):
        await wms.start_failed(uuid, str(caught.value))
    assert await wms.next_start_order(SCHEDD) is None


async def test_a_refusal_has_the_words_of_the_wms(wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    with pytest.raises(WMSRefused, match="expected a whole number, got a string") as caught:
        await wms.confirm_start(uuid, cluster_id="7", n_workers=1, submit_dict={}, job_event_log_fpath="")  # type: ignore[arg-type]
    assert caught.value.status == 400
    with pytest.raises(WMSRefused):
        await wms.query_taskforces({"$where": "1"}, [])


# --- faults: every call, every kind ---


@attrs.frozen
class Case:
    """A call, and how often the WMS must have acted upon it in the end."""

    call: Callable[[WMS, str], Awaitable[Any]]
    path: str
    target: str = ""
    succeeded: bool = True


CASES: Final = {
    "start order": Case(lambda wms, _: wms.next_start_order(SCHEDD), "/v1/tms/pending-starter/*"),
    "stop order": Case(lambda wms, _: wms.next_stop_order(SCHEDD), "/v1/tms/pending-stopper/*"),
    "taskforce": Case(lambda wms, uuid: wms.taskforce(uuid), "/v1/taskforces/*"),
    "start failed": Case(
        lambda wms, uuid: wms.start_failed(uuid, "no"), "/v1/tms/condor-submit/*", "condor-submit", succeeded=False
    ),
    "stop failed": Case(
        lambda wms, uuid: wms.stop_failed(uuid, "no"), "/v1/tms/condor-rm/*", "condor-rm", succeeded=False
    ),
    "complete": Case(
        lambda wms, uuid: wms.complete(uuid, condor_complete_ts=5), "/v1/tms/condor-complete/*", "condor-complete"
    ),
    "statuses": Case(lambda wms, uuid: wms.send_statuses({uuid: {"IDLE": {"null": 1}}}, {}), "/v1/tms/statuses/*"),
    "query": Case(lambda wms, uuid: wms.query_taskforces({"taskforce_uuid": uuid}, ["phase"]), "/v1/query/*"),
}
FAULTS: Final = {
    "500": Fault(status=500, count=2),
    "503 after acting": Fault(status=503, after=True, count=2),
    "429": Fault(status=429, retry_after=0, count=2),
    "408": Fault(status=408, count=2),
    "dropped": Fault(drop=True, count=2),
    "dropped after acting": Fault(drop=True, after=True, count=2),
    "401": Fault(status=401, count=2),
    "403": Fault(status=403, count=2),
    "a redirect": Fault(status=302, count=2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_transient_faults_are_outlived_and_nothing_counts_twice(
    standin: Standin, wms: WMS, user: User, case: Case
) -> None:
    for name, fault in FAULTS.items():
        uuid = await user.taskforce()
        standin.requests.clear()
        standin.faults.add(attrs.evolve(fault, path=case.path))
        with trio.fail_after(PATIENCE):
            await case.call(wms, uuid)
        standin.faults.clear()
        # What may not be repeated is sent once when the WMS acted; everything else until there is an answer.
        tries = 1 if fault.after and case.target else 3
        assert sum(fnmatchcase(each.path, case.path) for each in standin.requests) == tries, name
        if case.target:
            assert entries(standin, uuid, case.target, succeeded=case.succeeded) == 1, name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_answer_that_does_not_come_in_time(standin: Standin, user: User, case: Case) -> None:
    uuid = await user.taskforce()
    standin.faults.add(Fault(path=case.path, delay=60, after=True, count=1))
    with trio.fail_after(PATIENCE):
        async with client(standin, timeout=0.2) as wms:
            await case.call(wms, uuid)
    if case.target:
        assert entries(standin, uuid, case.target, succeeded=case.succeeded) == 1


@pytest.mark.parametrize("fault", [Fault(drop=True, after=True, count=1), Fault(status=502, after=True, count=1)])
async def test_a_confirm_whose_answer_is_lost_ends_in_a_404_with_our_cluster(
    standin: Standin, wms: WMS, user: User, fault: Fault
) -> None:
    uuid = await user.taskforce()
    standin.faults.add(attrs.evolve(fault, path="/v1/tms/condor-submit/*"))
    with pytest.raises(WMSNotFound):
        await confirm(wms, uuid, cluster_id=11)
    assert (await wms.taskforce(uuid)).cluster_id == 11
    assert entries(standin, uuid, "condor-submit") == 1


async def test_the_look_before_a_repetition_may_fail_too(standin: Standin, wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    standin.faults.add(Fault(path="/v1/tms/condor-complete/*", drop=True, after=True, count=1))
    standin.faults.add(Fault(path="/v1/taskforces/*", status=500, count=3))
    await wms.complete(uuid, condor_complete_ts=5)
    assert entries(standin, uuid, "condor-complete") == 1
    assert [path for _, path in standin.called("/v1/tms")].count(f"/v1/tms/condor-complete/taskforces/{uuid}") == 1


async def test_cancelled_calls_leave_the_client_usable(standin: Standin, wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    standin.faults.add(Fault(path="/v1/taskforces/*", delay=60))
    with trio.move_on_after(0.3):
        async with trio.open_nursery() as nursery:
            for _ in range(120):  # more than the connection pool holds
                nursery.start_soon(wms.taskforce, uuid)
    standin.faults.clear()
    with trio.fail_after(PATIENCE):
        assert (await wms.taskforce(uuid)).taskforce_uuid == uuid


async def test_nobody_there_and_then_somebody() -> None:
    async with serve() as short:
        address = short.address
    answered = trio.Event()
    async with open_wms(address, None, retry=QUICK) as wms, trio.open_nursery() as nursery:

        async def ask() -> None:
            assert await wms.next_start_order(SCHEDD) is None
            answered.set()

        nursery.start_soon(ask)
        await trio.sleep(0.05)
        assert not answered.is_set()
        async with serve(port=int(address.rpartition(":")[2]), needs_token=False):
            with trio.fail_after(PATIENCE):
                await answered.wait()


async def test_giving_up_after_some_attempts_when_asked_for(standin: Standin, user: User) -> None:
    standin.faults.add(Fault(path="/v1/*", status=503))
    async with client(standin, retry=Retry(first=0.001, attempts=3)) as wms:
        with pytest.raises(WMSUnavailable, match="503"):
            await wms.next_start_order(SCHEDD)
    assert len(standin.called("/v1/tms")) == 3


# --- tokens ---


async def test_a_revoked_token_costs_one_401(standin: Standin, wms: WMS) -> None:
    await wms.next_start_order(SCHEDD)
    standin.issuer.revoke_all()
    await wms.next_start_order(SCHEDD)
    statuses = [each.status for each in standin.requests if each.path.startswith("/v1/tms")]
    assert statuses == [200, 401, 200]
    assert standin.issuer.issued == 2


async def test_short_lived_tokens_are_no_hindrance() -> None:
    # That they are renewed before they expire is tested on the virtual clock, in test_wms_auth.py.
    async with serve(token_lifetime=0.2) as standin, client(standin) as wms:
        with trio.fail_after(PATIENCE):
            while standin.issuer.issued < 4:
                await wms.next_start_order(SCHEDD)
                await trio.sleep(0.01)


async def test_many_calls_share_one_token(standin: Standin, wms: WMS) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(wms.next_start_order, SCHEDD)
    assert standin.issuer.issued == 1


async def test_a_wrong_secret_is_said_and_does_not_spin(standin: Standin) -> None:
    def tried() -> int:
        return sum(path.endswith("/token") for _, path in standin.called("/auth"))

    auth = Auth(standin.token_url, standin.client_id, Secret("a-wrong-secret"))
    retry = Retry(first=0.2, cap=0.2)
    async with open_wms(standin.address, auth, retry=retry) as wms, trio.open_nursery() as nursery:
        nursery.start_soon(wms.next_start_order, SCHEDD)
        await until(lambda: tried() > 0)
        before, began = tried(), trio.current_time()
        await trio.sleep(0.5)
        assert tried() - before <= 1 + 20 * (trio.current_time() - began)
        nursery.cancel_scope.cancel()
    async with open_wms(standin.address, auth, retry=Retry(attempts=1)) as wms:
        with pytest.raises(WMSUnauthorized, match="refuses the credentials of client 'ewms-standin'") as caught:
            await wms.next_start_order(SCHEDD)
    assert "a-wrong-secret" not in str(caught.value)


async def test_a_token_that_is_never_accepted_does_not_spin(standin: Standin) -> None:
    standin.faults.add(Fault(path="/v1/*", status=401))
    async with client(standin, retry=Retry(attempts=1)) as wms:
        with pytest.raises(WMSUnauthorized, match="401"):
            await wms.next_start_order(SCHEDD)
    assert len(standin.called("/v1/tms")) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_is_renewed_at_once_where_validity_or_role_is_missing(standin: Standin, status: int) -> None:
    standin.faults.add(Fault(path="/v1/*", status=status, count=1))
    async with client(standin, retry=Retry(attempts=1)) as wms:
        assert await wms.next_start_order(SCHEDD) is None


async def test_another_answer_than_the_true_one(standin: Standin, wms: WMS, user: User) -> None:
    uuid = await user.taskforce()
    standin.faults.add(Fault(path="/v1/tms/pending-starter/*", answer='{"taskforce": 7}', count=1))
    with pytest.raises(WMSMalformed):
        await wms.next_start_order(SCHEDD)
    order = await wms.next_start_order(SCHEDD)
    assert order is not None
    assert order.taskforce.taskforce_uuid == uuid


async def test_all_tokens_can_be_made_void_while_it_runs(standin: Standin, wms: WMS, user: User) -> None:
    await wms.next_start_order(SCHEDD)
    await user.call("DELETE", "/_standin/tokens")
    await user.call("GET", "/v1/workflows/WF-1", status=401)
    assert await wms.next_start_order(SCHEDD) is None  # with a new one


@pytest.mark.parametrize("fault", [Fault(status=503, count=2), Fault(drop=True, count=2), Fault(status=404, count=1)])
async def test_an_issuer_that_is_away_is_waited_for(standin: Standin, wms: WMS, fault: Fault) -> None:
    standin.faults.add(attrs.evolve(fault, path="/auth/*"))
    with trio.fail_after(PATIENCE):
        assert await wms.next_start_order(SCHEDD) is None


async def test_without_credentials_and_without_a_need_for_them() -> None:
    async with serve(needs_token=False) as standin, open_wms(standin.address + "/", None, retry=QUICK) as wms:
        assert await wms.next_start_order(SCHEDD) is None


async def test_without_credentials_where_they_are_needed(standin: Standin) -> None:
    async with open_wms(standin.address, None, retry=Retry(attempts=1)) as wms:
        with pytest.raises(WMSUnauthorized):
            await wms.next_start_order(SCHEDD)


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://x", "http://"])
async def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="is not an http"):
        async with open_wms(address, None):
            raise AssertionError("it must not be opened")


async def test_no_token_and_no_secret_in_any_log(
    standin: Standin,
    wms: WMS,
    user: User,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With every logger of every library at DEBUG, and without our redaction."""
    caplog.set_level("DEBUG")
    uuid = await user.taskforce()
    seen = set()
    for fault in FAULTS.values():
        standin.faults.add(attrs.evolve(fault, path="/v1/tms/pending-starter/*"))
        await wms.next_start_order(SCHEDD)
        assert wms._tokens is not None
        seen.add(wms._tokens._text)
    standin.state.taskforce_document(uuid)["n_workers"] = "four"
    with pytest.raises(WMSMalformed):
        await wms.next_start_order(SCHEDD)
    captured = capfd.readouterr()
    logged = captured.out + captured.err + caplog.text
    assert "WMS call failed" in logged
    for secret in (TOKEN, standin.client_secret.reveal(), *seen):
        assert secret
        assert secret not in logged


# --- the stand-in itself ---


async def test_faults_are_switched_by_rest(standin: Standin, user: User) -> None:
    fault = {"path": "/v1/query/*", "status": 503, "count": 1}
    shown = await user.call("POST", "/_standin/faults", fault)
    assert shown["faults"][0]["status"] == 503
    await user.call("POST", "/v1/query/workflows", {"query": {}}, status=503)
    await user.call("POST", "/v1/query/workflows", {"query": {}})
    assert (await user.call("GET", "/_standin/faults")) == {"faults": []}
    await user.call("POST", "/_standin/faults", {"drop": True})
    assert (await user.call("DELETE", "/_standin/faults")) == {"faults": []}
    await user.call("POST", "/_standin/faults", {"typo": 1}, status=400)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/workflows", None, 405),
        ("GET", "/v1/workflows/WF-x", None, 404),
        ("POST", "/v1/workflows/WF-x/actions/abort", None, 404),
        ("GET", "/v1/tms/pending-starter/taskforces", None, 400),
        ("GET", "/v1/tms/pending-starter/taskforces?schedd=S&x=1", None, 400),
        ("GET", "/v1/tms/pending-stopper/taskforces?schedd=", None, 400),
        ("POST", "/v1/tms/condor-rm/taskforces/TF-x/failed", None, 400),
        ("POST", "/v1/query/taskforces", {"query": {}, "after": "x"}, 400),
        ("POST", "/v1/query/taskforces", {}, 400),
        ("POST", "/v1/workflows", workflow_request(tasks=0), 400),
        ("POST", "/v1/workflows", workflow_request(public_queue_aliases=["x"]), 400),
        ("POST", "/v1/workflows", workflow_request() | {"tasks": [{**TASK, "cluster_locations": ["x"]}]}, 400),
        ("POST", "/v1/workflows", workflow_request() | {"tasks": [{**TASK, "pilot_config": {"tag": "1"}}]}, 400),
        (
            "POST",
            "/v1/workflows",
            workflow_request()
            | {
                "tasks": [
                    {**TASK, "worker_config": {k: v for k, v in WORKER_CONFIG.items() if k != "condor_requirements"}}
                ]
            },
            400,
        ),
    ],
)
async def test_wrong_calls_get_the_right_4xx(user: User, method: str, path: str, body: Any, status: int) -> None:
    answer = await user.call(method, path, body, status=status)
    assert answer["code"] == status
    assert answer["error"]


async def test_a_launch_that_takes_time_and_an_abort_on_the_way(user: User) -> None:
    async with (
        serve(launch_delay=3, needs_token=False) as standin,  # longer than some calls take, on a busy machine too
        httpx.AsyncClient(base_url=standin.address) as http,
    ):
        impatient = User(http)
        launched = await impatient.taskforce()
        aborted = await impatient.taskforce()
        assert standin.state.taskforce(launched).phase is Phase.PRE_MQ_ACTIVATION
        await impatient.abort(aborted)
        await until(lambda: standin.state.taskforce(launched).phase is Phase.PENDING_STARTER)
        await trio.sleep(0.1)
        assert standin.state.taskforce(aborted).phase is Phase.PENDING_STOPPER


async def test_it_goes_on_from_its_file_and_finishes_what_it_left(tmp_path: Path) -> None:
    db = tmp_path / "wms.sqlite"
    async with serve(db=db, launch_delay=60, needs_token=False) as standin:
        async with httpx.AsyncClient(base_url=standin.address) as http:
            uuid = await User(http).taskforce()
        assert standin.state.taskforce(uuid).phase is Phase.PRE_MQ_ACTIVATION
    async with serve(db=db, needs_token=False) as standin:
        await until(lambda: standin.state.taskforce(uuid).phase is Phase.PENDING_STARTER)


@attrs.define
class Watcher:
    """An observer that loses the first answer."""

    seen: list[tuple[str, Phase | int]] = attrs.field(factory=list)
    standin: Standin | None = None

    async def arrived(self, request: Request) -> None:
        assert self.standin
        await trio.lowlevel.checkpoint()
        (taskforce,) = self.standin.state.taskforces()
        self.seen.append((request.path.split("/")[3], taskforce.phase))

    async def acted(self, request: Request, status: int, answer: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        self.seen.append((answer.decode()[:9], status))
        return len(self.seen) > 2


async def test_an_observer_sees_each_call_before_and_after_the_wms_acts_and_may_lose_its_answer() -> None:
    watcher = Watcher()
    async with (
        serve(observer=watcher, needs_token=False) as standin,
        open_wms(standin.address, None, retry=QUICK) as wms,
    ):
        made = standin.state.create_workflow(structure(WorkflowRequest, workflow_request()))
        standin.state.activate(made["workflow"]["workflow_id"])
        standin.state.launch(made["workflow"]["workflow_id"])
        watcher.standin = standin
        uuid = made["taskforces"][0]["taskforce_uuid"]
        with pytest.raises(WMSNotFound):  # the first one arrived
            await wms.confirm_start(uuid, cluster_id=1, n_workers=1, submit_dict={}, job_event_log_fpath="/x")
    assert watcher.seen == [
        ("condor-submit", Phase.PENDING_STARTER),
        ('{"taskfor', 200),
        ("condor-submit", Phase.CONDOR_SUBMIT),
        ('{"code":4', 404),
    ]
    assert [each.status for each in standin.requests if "condor-submit" in each.path] == [None, 404]
