"""JSON → models: strict, readable, and without surprises from a newer WMS."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.secret import Secret
from ewms.wms.converter import read
from ewms.wms.errors import WMSMalformed
from ewms.wms.models import Phase, StartOrder, Taskforce

START_ORDER = Path(__file__).parents[2] / "data" / "wms" / "start-order.json"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def order() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(START_ORDER.read_text())
    return value


def test_a_captured_start_order_is_read_whole(order: dict[str, Any]) -> None:
    start = read(StartOrder, order, "start order")
    assert start.taskforce.taskforce_uuid == "TF-6b021e20-4759eae9-2ac038aa-8dcf0b99"
    assert start.taskforce.phase is Phase.PENDING_STARTER
    assert start.taskforce.worker_config.worker_memory == "1 GB"
    assert start.taskforce.pilot_config.environment["EWMS_PILOT_TASK_TIMEOUT"] == 60
    assert len(start.taskforce.phase_change_log) == 3
    assert start.task_directive.input_queues == ("WF-6b021e20-4759eae9-in", "WF-6b021e20-4759eae9-in2")
    assert [each.auth_token for each in start.mqprofiles] == [Secret("TOKEN-FOR-TESTS")] * 3
    assert "TOKEN-FOR-TESTS" not in repr(start)


def test_unknown_keys_everywhere_are_ignored(order: dict[str, Any]) -> None:
    expected = read(StartOrder, order, "start order")
    taskforce = order["taskforce"]
    holders = [
        order,
        taskforce,
        taskforce["worker_config"],
        taskforce["pilot_config"],
        taskforce["phase_change_log"][0],
        order["task_directive"],
        order["mqprofiles"][0],
    ]
    for holder in holders:
        holder["added_by_a_newer_wms"] = {"any": "thing"}
    assert read(StartOrder, order, "start order") == expected


@pytest.mark.parametrize(("value", "read_as"), [("text", "text"), (3, 3), (["a", "b"], ("a", "b")), ([], ())])
def test_pilot_environment_values(order: dict[str, Any], value: Any, read_as: Any) -> None:
    order["taskforce"]["pilot_config"]["environment"] = {"EWMS_PILOT_X": value}
    assert read(StartOrder, order, "start order").taskforce.pilot_config.environment == {"EWMS_PILOT_X": read_as}


def test_amounts_may_be_numbers_and_n_workers_null(order: dict[str, Any]) -> None:
    order["taskforce"]["n_workers"] = None
    order["taskforce"]["worker_config"].update(worker_disk=10**12, worker_memory=1024)
    taskforce = read(StartOrder, order, "start order").taskforce
    assert taskforce.n_workers is None
    assert (taskforce.worker_config.worker_disk, taskforce.worker_config.worker_memory) == (10**12, 1024)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("taskforce.n_workers", "4", "expected a whole number, got a string @ $.taskforce.n_workers"),
        ("taskforce.priority", True, "expected a whole number, got a boolean @ $.taskforce.priority"),
        ("taskforce.priority", 1.0, "expected a whole number, got a number with a fraction @ $.taskforce.priority"),
        ("taskforce.phase", "condor", "expected one of pre-mq-activation, "),
        ("taskforce.phase", None, "expected a string, got null @ $.taskforce.phase"),
        ("taskforce.timestamp", float("nan"), "expected a finite number"),
        ("taskforce.pilot_config", "none", "expected an object, got a string @ $.taskforce.pilot_config"),
        (
            "taskforce.worker_config.worker_memory",
            None,
            "expected a string or a whole number, got null @ $.taskforce.worker_config.worker_memory",
        ),
        ("task_directive.input_queues", "abc", "expected a list, got a string @ $.task_directive.input_queues"),
        ("task_directive.task_env", {"A": 1}, "expected a string, got a whole number @ $.task_directive.task_env['A']"),
        ("mqprofiles", {}, "expected a list, got an object @ $.mqprofiles"),
    ],
)
def test_a_wrong_value_names_its_path_and_the_taskforce(
    order: dict[str, Any], path: str, value: Any, problem: str
) -> None:
    *holders, last = path.split(".")
    target = order
    for holder in holders:
        target = target[holder]
    target[last] = value
    with pytest.raises(WMSMalformed) as caught:
        read(StartOrder, order, "start order")
    assert caught.value.taskforce_uuid == "TF-6b021e20-4759eae9-2ac038aa-8dcf0b99"
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem)


def test_every_problem_is_told_at_once_and_no_value(order: dict[str, Any]) -> None:
    del order["taskforce"]["schedd"]
    order["taskforce"]["n_workers"] = "SECRET"
    order["mqprofiles"][1]["auth_token"] = ["SECRET"]
    with pytest.raises(WMSMalformed) as caught:
        read(StartOrder, order, "start order")
    assert caught.value.problems == (
        "is missing @ $.taskforce.schedd",
        "expected a whole number, got a string @ $.taskforce.n_workers",
        "expected a string, got a list @ $.mqprofiles[1].auth_token",
    )
    assert "SECRET" not in str(caught.value)


@given(json_values)
def test_whatever_comes_there_is_one_own_error(value: Any) -> None:
    with pytest.raises(WMSMalformed):
        read(StartOrder, value, "start order")


@given(st.data())
def test_any_value_in_any_place_is_read_or_is_one_own_error(data: st.DataObject) -> None:
    order = json.loads(START_ORDER.read_text())
    target = order["taskforce"]
    key = data.draw(st.sampled_from(sorted(target)))
    target[key] = data.draw(json_values)
    problems: tuple[str, ...] = ()
    try:
        read(Taskforce, target, "taskforce")
    except WMSMalformed as error:
        problems = error.problems
    assert all("@ $" in problem for problem in problems)
