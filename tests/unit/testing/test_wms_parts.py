"""The stand-in's smaller parts: faults, tokens, schema, store."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from ewms.secret import Secret
from ewms.testing.wms import schema
from ewms.testing.wms.faults import Fault, Faults
from ewms.testing.wms.problems import Problem
from ewms.testing.wms.store import Store
from ewms.testing.wms.tokens import TokenIssuer


def test_a_fault_meets_its_calls_so_many_times() -> None:
    faults = Faults()
    twice = Fault(path="/v1/tms/*", method="POST", count=2, status=503)
    faults.add(twice)
    assert faults.take("GET", "/v1/tms/x") == Fault()
    assert faults.take("POST", "/v1/query/x") == Fault()
    assert faults.take("POST", "/v1/tms/x") == twice
    assert faults.active() == [attrs.evolve(twice, count=1)]
    assert faults.take("POST", "/v1/tms/y").status == 503
    assert faults.take("POST", "/v1/tms/x") == Fault()
    assert faults.active() == []


def test_a_fault_without_a_count_stays_until_cleared_and_spares_the_control_calls() -> None:
    faults = Faults()
    faults.add(Fault(drop=True))
    assert all(faults.take("GET", "/x").drop for _ in range(10))
    assert faults.take("DELETE", "/_standin/faults") == Fault()
    faults.clear()
    assert faults.take("GET", "/x") == Fault()


@attrs.define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> TokenIssuer:
    return TokenIssuer("us", Secret("our-secret"), 300, clock)


GOOD_FORM = {"grant_type": "client_credentials", "client_id": "us", "client_secret": "our-secret"}


def test_a_token_is_good_until_it_expires(issuer: TokenIssuer, clock: Clock) -> None:
    header = f"Bearer {issuer.grant(GOOD_FORM)['access_token']}"
    clock.now += 299
    issuer.check(header)
    clock.now += 1
    with pytest.raises(Problem, match="expired"):
        issuer.check(header)


def test_a_revoked_token_is_refused(issuer: TokenIssuer) -> None:
    header = f"Bearer {issuer.make()}"
    issuer.check(header)
    issuer.revoke_all()
    with pytest.raises(Problem):
        issuer.check(header)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic eA==", "Bearer ..", "Bearer é.é.é"]
)
def test_no_valid_token(issuer: TokenIssuer, header: str) -> None:
    with pytest.raises(Problem) as caught:
        issuer.check(header)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [({"grant_type": "password"}, 400), ({"client_id": "you"}, 401), ({"client_secret": "é"}, 401)],
)
def test_no_grant(issuer: TokenIssuer, change: dict[str, str], status: int) -> None:
    with pytest.raises(Problem) as caught:
        issuer.grant({**GOOD_FORM, **change})
    assert caught.value.status == status
    assert issuer.issued == 0


@pytest.mark.parametrize(
    ("cls", "body", "problem"),
    [
        (schema.Failed, b"", "not JSON"),
        (schema.Failed, b"{}", "is missing @ $.error"),
        (schema.Failed, b'{"error": null}', "expected a string, got null @ $.error"),
        (schema.Failed, b'{"error": "x", "why": 1}', "unknown keys: why @ $"),
        (schema.Failed, b"[]", "expected an object, got a list @ $"),
        (schema.Nothing, b'{"error": "x"}', "unknown keys: error @ $"),
        (schema.Completed, b'{"condor_complete_ts": 1.5}', "expected a whole number"),
        (schema.Statuses, b"{}", "at least one"),
        (schema.Statuses, b'{"top_task_errors_by_taskforce": {}}', "not at all"),
        (schema.Statuses, b'{"compound_statuses_by_taskforce": {"u": {"IDLE": 3}}}', "['u']['IDLE']"),
        (schema.Statuses, b'{"compound_statuses_by_taskforce": {"u": {"IDLE": {"null": "3"}}}}', "['null']"),
        (
            schema.StartConfirmed,
            b'{"cluster_id": 1, "n_workers": 1, "submit_dict": {"a": null}, "job_event_log_fpath": ""}',
            "$.submit_dict['a']",
        ),
    ],
)
def test_a_wrong_body_is_a_400_that_says_why(cls: type[Any], body: bytes, problem: str) -> None:
    with pytest.raises(Problem) as caught:
        schema.parse(cls, body)
    assert caught.value.status == 400
    assert problem in caught.value.error


def test_right_bodies() -> None:
    assert schema.parse(schema.Nothing, b"") == schema.Nothing()
    assert schema.parse(schema.Nothing, b"{}") == schema.Nothing()
    assert schema.parse(schema.Failed, b'{"error": "x"}') == schema.Failed("x")


def test_the_store_goes_on_from_its_file(tmp_path: Path) -> None:
    db = tmp_path / "wms.sqlite"
    store = Store(db)
    documents = [{"taskforce_uuid": f"TF-{number}", "phase": "x"} for number in (3, 1, 2)]
    store.save([("taskforces", each) for each in documents])
    store.save([("taskforces", {**documents[0], "phase": "y"}), ("workflows", {"workflow_id": "WF-1"})])
    store.close()
    assert db.stat().st_mode & 0o777 == 0o600

    store = Store(db)
    assert [each["taskforce_uuid"] for each in store.all("taskforces")] == ["TF-3", "TF-1", "TF-2"]
    assert store.get("taskforces", "TF-3") == {"taskforce_uuid": "TF-3", "phase": "y"}
    assert store.get("workflows", "TF-3") is None
    store.close()
