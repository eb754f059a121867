import pytest

from ewms.testing.wms import Fault, Request
from tests.sweep.cases import KILLS, SCENARIOS, Act, Case, Seen, Trigger, cases_of, choose, enough, parse_case
from tests.sweep.steps import Point, is_poll, local_step, parse_point, wms_call
from tests.sweep.table import Result, table

UUID = "TF-1-2-3-4"
LIFE, RESTART = SCENARIOS[:2]


def request(method: str, path: str, *, query: str = "", body: object = None) -> Request:
    return Request(method, path, query, body, Fault())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (request("GET", f"/v1/taskforces/{UUID}"), "wms:GET:taskforce"),
        (request("POST", f"/v1/tms/condor-submit/taskforces/{UUID}"), "wms:POST:condor-submit"),
        (request("POST", f"/v1/tms/condor-rm/taskforces/{UUID}/failed"), "wms:POST:condor-rm/failed"),
        (request("POST", "/v1/tms/condor-rm/taskforces/TF-5-6-7-8"), None),
        (request("POST", "/v1/tms/statuses/taskforces", body={"x": {UUID: {}}}), "wms:POST:statuses"),
        (request("POST", "/v1/tms/statuses/taskforces", body={"x": {"TF-5-6-7-8": {}}}), None),
        (request("POST", "/v1/query/taskforces"), "wms:POST:query"),
        (request("POST", "/auth/realms/standin/protocol/openid-connect/token"), "wms:POST:openid-connect/token"),
    ],
)
def test_calls_have_names_of_what_they_are_about(call: Request, name: str | None) -> None:
    assert wms_call(call, UUID) == name


def test_polls_are_known() -> None:
    assert is_poll(request("GET", "/v1/tms/pending-starter/taskforces", query="schedd=ap"))
    assert not is_poll(request("GET", f"/v1/taskforces/{UUID}"))


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (f"disk:rename:.tms/ledger/{UUID}.json", "disk:rename:.tms/ledger/TF.json"),
        ("disk:rename:.tms/ledger/TF-5-6-7-8.json", None),
        ("disk:open:.tms/watch/.2026-11-21.tms.jel.json.lb2y6vo8", "disk:open:.tms/watch/.DAY.tms.jel.json.RANDOM"),
        ("schedd:submit:sent", "schedd:submit:sent"),
    ],
)
def test_steps_on_this_machine_have_names_that_stay(said: str, step: str | None) -> None:
    assert local_step(said, UUID) == step


def test_a_case_is_found_again_by_its_name() -> None:
    harm = Trigger(Point("wms:POST:condor-submit:acted", 2), Act.ANSWER)
    later = Trigger(Point("schedd:submit:sent"), Act.HELPER, 30)
    for scenario in SCENARIOS:
        assert parse_case(Case(scenario, harm).name) == Case(scenario, harm)
        assert parse_case(Case(scenario, later).name) == Case(scenario, later)
        assert parse_case(scenario.name) == Case(scenario)
    assert parse_point("a:b#3") == Point("a:b", 3)
    assert Case(RESTART, harm).plan == (*RESTART.script, harm)


@pytest.mark.parametrize("name", ["nothing@a#1@tms", "life@a#1@bomb", "life@a#x@tms", "life@a#1"])
def test_a_wrong_name_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_case(name)


def test_every_point_gets_every_harm_that_can_be_done_there() -> None:
    run = [
        Seen(Point("tms:started"), has_helper=False, is_start=True),
        Seen(Point("wms:POST:condor-submit:acted"), has_helper=True, is_start=True),
        Seen(Point("schedd:submit:sent"), has_helper=True, is_start=True),
        Seen(Point("wms:POST:statuses:arrived", 4), has_helper=True, is_start=False),
        Seen(Point("wms:POST:condor-rm:arrived"), has_helper=True, is_start=False),
    ]
    harms: dict[str, list[str]] = {}
    for case in cases_of(LIFE, run):
        assert case.harm
        point, _, act = case.harm.name.partition("@")
        harms.setdefault(point, []).append(act)
    assert harms == {
        "tms:started#1": ["tms", "both", "term"],
        "wms:POST:condor-submit:acted#1": ["tms", "helper", "both", "term", "answer"],
        "schedd:submit:sent#1": ["tms", "helper", "both", "term"]
        + [f"{act}+{delay}ms" for act in ("helper", "both") for delay in (3, 15, 60, 200)],
        "wms:POST:condor-rm:arrived#1": ["tms", "helper", "both", "term"],
    }
    assert len(cases_of(RESTART, run)) == 20  # it differs before the confirmation only


def cases(scenario_index: int, number: int, step: str = "x") -> list[Case]:
    return [Case(SCENARIOS[scenario_index], Trigger(Point(step, each), Act.TMS)) for each in range(number)]


@pytest.mark.parametrize(
    ("number", "of_life", "of_its_heart"),
    [(1, 1, 1), (3, 3, 3), (30, 20, 10), (110, 110, 10), (130, 110, 10), (210, 110, 10), (300, 110, 10)],
)
def test_the_heart_is_always_chosen_then_the_life_then_evenly(number: int, of_life: int, of_its_heart: int) -> None:
    everything = cases(0, 100) + cases(0, 10, "schedd:submit:sent") + cases(1, 100)
    chosen = choose(everything, number)
    assert len(chosen) == len(set(chosen)) == min(number, 210)
    assert sum(case.scenario is LIFE for case in chosen) == of_life
    assert sum(bool(case.harm and "submit" in case.harm.point.step) for case in chosen) == of_its_heart


def test_cases_are_taken_until_they_have_the_kills_that_are_asked_for() -> None:
    seen = [Seen(Point(f"wms:POST:x{number}:acted"), True, True) for number in range(20)]
    of_life = cases_of(LIFE, seen)  # of five harms two are no kill
    assert len(of_life) == 100
    for kills in (1, 7, 30, 60, 1000):
        chosen = enough(of_life, kills)
        played = sum(case.harm is not None and case.harm.act in KILLS for case in chosen)
        assert min(kills, 60) <= played <= 2 * kills
    assert enough(of_life, 1000) == of_life
    restart = Case(RESTART, of_life[0].harm)
    assert restart.kills == 2
    assert len(enough([restart] * 5, 4)) < 5


def result(case: Case, n_clusters: int, *problems: str, is_reached: bool = True) -> Result:
    return Result(case, is_reached, 1, n_clusters, problems, (), 1.0, ())


def test_the_table_counts_by_step_and_kind() -> None:
    one, two, three = cases(0, 3)
    text = table([result(one, 1), result(two, 2, "2 clusters"), result(three, 1, is_reached=False)])
    assert text.splitlines() == [
        "step  kind  cases  clusters found                  outcome",
        "x     tms   3      2x 1 completed, 1x 2 completed  1 WRONG, 1 not reached",
        "",
        "3 cases: 3 kills, 0 shutdowns, 0 lost answers, 1 steps not reached; 4 clusters; 1 wrong",
    ]
