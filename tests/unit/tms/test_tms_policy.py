"""The policy expressions, evaluated by HTCondor's own ClassAd library on ads as the schedd has them."""

from pathlib import Path
from typing import Any

import attrs
import classad2
import pytest

from ewms.contract import SUSPECT_MACHINE_EXIT_STATUSES
from ewms.pilot.errors import ExitStatus
from ewms.tms.policy import EXPRESSIONS, START_FAILURES_SUBCODE, Policy, memory_request
from ewms.tms.settings import Settings

SETTINGS = Settings(wms_address="http://wms", no_auth=True, job_dir=Path("/jobs"))
POLICY = SETTINGS.policy
LONG_AGO = 1_700_000_000


def ad_of(attributes: dict[str, Any]) -> Any:
    """A job's ad; nested dicts are ads."""
    ad = classad2.ClassAd()
    for name, value in attributes.items():
        ad[name] = ad_of(value) if isinstance(value, dict) else value
    return ad


def evaluate(expression: str, **attributes: Any) -> Any:
    return classad2.ExprTree(expression).eval(ad_of(attributes))


def is_true(command: str, policy: Policy = POLICY, **attributes: Any) -> bool:
    """Whether HTCondor would act: UNDEFINED and ERROR are not true."""
    return evaluate(policy.commands()[command], **attributes) is True


def held(code: int, holds: int = 1, *, by_user: int = 0, since: int = LONG_AGO, subcode: int = 0) -> dict[str, Any]:
    """A held job's ad."""
    return {
        "JobStatus": 5,
        "HoldReasonCode": code,
        "HoldReasonSubCode": subcode,
        "EnteredCurrentStatus": since,
        "NumHolds": holds,
        "NumHoldsByReason": {"UserRequest": by_user} if by_user else {"Some": holds},
    }


def now() -> int:
    value = evaluate("time()")
    assert isinstance(value, int)
    return value


def test_every_expression_is_one() -> None:
    commands = POLICY.commands()
    for name in EXPRESSIONS:
        classad2.ExprTree(commands[name])
    assert set(commands) == {*EXPRESSIONS, "periodic_hold_subcode", "job_machine_attrs"}


# --- workers that fail ---


@pytest.mark.parametrize(
    ("attributes", "leaves"),
    [
        ({"ExitBySignal": False, "ExitCode": 0, "NumJobCompletions": 1}, True),
        ({"ExitBySignal": False, "ExitCode": 1, "NumJobCompletions": 1}, False),
        ({"ExitBySignal": False, "ExitCode": 1, "NumJobCompletions": 3}, False),
        ({"ExitBySignal": False, "ExitCode": 1, "NumJobCompletions": 4}, True),
        ({"ExitBySignal": False, "ExitCode": 255, "NumJobCompletions": 1}, False),
        ({"ExitBySignal": False, "ExitCode": 2, "NumJobCompletions": 1}, True),
        ({"ExitBySignal": False, "ExitCode": 9, "NumJobCompletions": 1}, True),
        ({"ExitBySignal": False, "ExitCode": 137, "NumJobCompletions": 1}, False),
        ({"ExitBySignal": True, "ExitSignal": 9, "NumJobCompletions": 1}, False),
        ({"ExitBySignal": True, "ExitSignal": 9, "NumJobCompletions": 4}, True),
        ({"ExitBySignal": True, "ExitSignal": 15, "NumJobCompletions": 1}, True),
        # Evictions and starts without an end are none of its tries.
        ({"ExitBySignal": False, "ExitCode": 1, "NumJobCompletions": 1, "NumJobStarts": 50}, False),
    ],
)
def test_who_leaves_the_queue_at_its_end(attributes: dict[str, Any], leaves: bool) -> None:
    assert is_true("on_exit_remove", **attributes) is leaves


def test_without_a_rule_every_end_is_one() -> None:
    for policy in (attrs.evolve(POLICY, requeue_exit_statuses=()), attrs.evolve(POLICY, max_requeues=0)):
        assert is_true("on_exit_remove", policy, ExitBySignal=False, ExitCode=1, NumJobCompletions=1)


def test_the_exit_statuses_are_the_pilots() -> None:
    names = ("TASKS_FAILED", "INIT_FAILED", "RUNTIME", "IMAGE", "BROKER_LOST", "DATA_DIRECTORY", "SELF_CHECK")
    assert tuple(int(ExitStatus[name]) for name in names) == SUSPECT_MACHINE_EXIT_STATUSES


@pytest.mark.parametrize(
    ("attributes", "machine", "fits"),
    [
        ({}, "bad", True),
        ({"NumJobCompletions": 0, "MachineAttrMachine0": "bad"}, "bad", True),  # evicted there, not failed
        ({"NumJobCompletions": 1, "MachineAttrMachine0": "bad", "ended": 10}, "bad", False),
        ({"NumJobCompletions": 1, "MachineAttrMachine0": "bad", "ended": 10}, "good", True),
        ({"NumJobCompletions": 1, "MachineAttrMachine0": "bad", "ended": 1300}, "bad", True),
        ({"NumJobCompletions": 1, "MachineAttrMachine0": "bad"}, "bad", True),  # nobody says when it ended
    ],
)
def test_a_worker_keeps_away_from_the_machine_where_it_failed(
    attributes: dict[str, Any], machine: str, fits: bool
) -> None:
    if "ended" in attributes:
        attributes = {**attributes, "JobCurrentFinishTransferOutputDate": now() - attributes["ended"]}
    _, requirement = POLICY.requirements()
    assert classad2.ExprTree(requirement).eval(ad_of(attributes), ad_of({"Machine": machine})) is fits


def test_on_a_pool_of_one_machine_it_may_be_switched_off() -> None:
    policy = attrs.evolve(POLICY, avoid_machine_time=0)
    assert len(policy.requirements()) == 1
    assert "job_machine_attrs" not in policy.commands()


# --- workers that cannot start ---


@pytest.mark.parametrize(
    ("attributes", "is_held"),
    [
        ({"JobStatus": 1}, False),
        ({"JobStatus": 1, "NumVacatesByReason": {"SingularityTestFailed": 9}}, False),
        ({"JobStatus": 1, "NumVacatesByReason": {"SingularityTestFailed": 10}}, True),
        ({"JobStatus": 2, "NumVacatesByReason": {"SingularityTestFailed": 10}}, False),
        # Released once: it has as many tries again.
        ({"JobStatus": 1, "NumVacatesByReason": {"SingularityTestFailed": 10}, "policy_holds": 1}, False),
        ({"JobStatus": 1, "NumVacatesByReason": {"SingularityTestFailed": 20}, "policy_holds": 1}, True),
        ({"JobStatus": 1, "NumVacatesByReason": {"Preempted": 50}}, False),
    ],
)
def test_who_is_held_because_its_container_cannot_be_started(attributes: dict[str, Any], is_held: bool) -> None:
    attributes = dict(attributes)
    if "policy_holds" in attributes:
        attributes["NumHoldsByReason"] = {"JobPolicy": attributes.pop("policy_holds")}
    assert is_true("periodic_hold", **attributes) is is_held
    if attributes["JobStatus"] == 1:  # no machine will do until it is held and released
        assert evaluate(POLICY.requirements()[0], **attributes) is not is_held


def test_the_reason_is_told() -> None:
    reason = evaluate(
        POLICY.commands()["periodic_hold_reason"],
        NumVacatesByReason={"SingularityTestFailed": 10},
        VacateReason="could not open image /x:1",
    )
    assert reason == "its container could not be started 10 times: could not open image /x:1"


# --- workers on hold ---


@pytest.mark.parametrize(
    ("job", "is_released"),
    [
        (held(13), True),
        (held(34), True),
        (held(13, 3), True),
        (held(13, 4), False),
        (held(13, 5, by_user=2), True),  # a person's own holds cost no tries
        (held(1), False),
        (held(15), False),
        (held(26), False),
        (held(3), False),
        (held(3, subcode=START_FAILURES_SUBCODE), True),
        (held(47), False),
        (held(32), False),
        ({"JobStatus": 5}, False),
    ],
)
def test_who_is_released(job: dict[str, Any], is_released: bool) -> None:
    assert is_true("periodic_release", **job) is is_released


def test_each_release_waits_longer() -> None:
    for holds, waits in ((1, 300), (2, 600), (3, 900)):
        assert not is_true("periodic_release", **held(13, holds, since=now() - waits + 20))
        assert is_true("periodic_release", **held(13, holds, since=now() - waits))


@pytest.mark.parametrize(
    ("job", "is_removed"),
    [
        (held(46, since=2**31), True),
        (held(47, since=2**31), True),
        (held(13, 4), True),
        (held(32), True),
        (held(1), False),
        (held(15), False),
        (held(16), False),
        (held(26), False),
        (held(27), False),
        ({**held(13, 4), "JobStatus": 1}, False),
        ({"JobStatus": 2, "EnteredCurrentStatus": LONG_AGO}, False),
        ({"JobStatus": 5, "EnteredCurrentStatus": LONG_AGO}, False),
    ],
)
def test_who_is_removed(job: dict[str, Any], is_removed: bool) -> None:
    assert is_true("periodic_remove", **job) is is_removed


def test_a_held_worker_is_seen_for_a_day_before_it_is_removed() -> None:
    assert not is_true("periodic_remove", **held(32, since=now() - 86400 + 20))
    assert is_true("periodic_remove", **held(32, since=now() - 86401))


# --- memory ---


@pytest.mark.parametrize(
    ("attributes", "mib"),
    [
        ({}, 1000),
        ({"NumHoldsByReason": {"UserRequest": 3, "TransferInputError": 1}}, 1000),
        ({"NumHoldsByReason": {"JobOutOfResources": 1}}, 1500),
        ({"NumHoldsByReason": {"JobOutOfResources": 3}}, 2500),
        (
            {
                "NumHoldsByReason": {"JobOutOfResources": 1, "StartdHeldJob": 1},
                "LastHoldReasonCode": 21,
                "LastHoldReasonSubCode": 102,
            },
            2000,
        ),
        (
            {
                "NumHoldsByReason": {"StartdHeldJob": 1},
                "LastHoldReasonCode": 21,
                "LastHoldReasonSubCode": 104,
            },
            1000,
        ),
    ],
)
def test_a_worker_that_used_more_memory_than_it_asked_for_asks_for_more(attributes: dict[str, Any], mib: int) -> None:
    assert evaluate(memory_request(1000), **attributes) == mib
