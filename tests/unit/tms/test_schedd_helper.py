"""The helper with the real bindings, as far as it goes without a schedd (tests/contract has the rest)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

classad2 = pytest.importorskip("classad2")
htcondor2 = pytest.importorskip("htcondor2")

from ewms.tms.condor import helper  # noqa: E402
from ewms.tms.condor.ads import plain  # noqa: E402
from ewms.tms.condor.wire import Request  # noqa: E402


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    config = tmp_path_factory.mktemp("condor") / "config"
    config.write_text(
        f"LOG = {config.parent}\nSCHEDD_ADDRESS_FILE = {config.parent}/none\nCOLLECTOR_HOST =\n"
        "EWMS_TEST = one word\nENABLE_USERLOG_LOCKING = false\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "ewms.tms.condor.helper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"CONDOR_CONFIG": str(config), "PYTHONWARNINGS": "ignore"},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()  # it ends when its input does
        assert process.wait(60) == 0


def ask(process: "subprocess.Popen[str]", call: str, **args: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps({"id": 1, "call": call, "args": args}), file=process.stdin, flush=True)
    reply = json.loads(process.stdout.readline())
    return reply.get("ok", reply.get("error"))


def test_parse_gives_the_canonical_form(process: "subprocess.Popen[str]") -> None:
    assert ask(process, "parse", expression="a=?=1 &&(b)") == "a is 1 && (b)"


def test_evaluate_gives_the_value(process: "subprocess.Popen[str]") -> None:
    assert ask(process, "evaluate", expression="99 - ((3 * 49) / 2)") == 26
    assert ask(process, "evaluate", expression='strcat("a", 1)') == "a1"


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("parse", {"expression": "a &&"}),
        ("evaluate", {"expression": "1 +"}),
        ("evaluate", {"expression": "1 / 0"}),
        ("evaluate", {"expression": "Missing + 1"}),
        ("query", {"constraint": "a &&", "projection": []}),
        ("history", {"constraint": "", "projection": []}),
        ("history", {"constraint": "true", "projection": [], "since": "a b"}),
        ("act", {"action": "hold", "constraint": "((", "reason": "r"}),
        ("submit", {"description": {"log": "/x\n+Evil = 1"}, "count": 1}),
        ("submit", {"description": {"log": "/x\\"}, "count": 1}),
        ("submit", {"description": {"a b": "x"}, "count": 1}),
        ("submit", {"description": {"queue": "3"}, "count": 1}),
    ],
)
def test_what_never_works_is_refused_before_a_schedd_is_asked(
    process: "subprocess.Popen[str]", call: str, args: dict[str, Any]
) -> None:
    answer = ask(process, call, **args)
    # history looks at "since" only after it found the schedd
    assert answer["kind"] == ("unreachable" if args.get("since") else "refused"), answer


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("query", {"constraint": "true", "projection": []}),
        ("history", {"constraint": "true", "projection": [], "match": 1, "since": "5"}),
        ("act", {"action": "remove", "constraint": "ClusterId == 1", "reason": "r"}),
        ("submit", {"description": {"executable": "/bin/true"}, "count": 1}),
    ],
)
def test_without_a_schedd_it_is_unreachable(process: "subprocess.Popen[str]", call: str, args: dict[str, Any]) -> None:
    assert ask(process, call, **args) == {"kind": "unreachable", "message": "Unable to locate local daemon."}


def test_nonsense_is_a_bug(process: "subprocess.Popen[str]") -> None:
    assert ask(process, "fly")["kind"] == "bug"
    assert ask(process, "param", nome="LOG")["kind"] == "bug"
    assert ask(process, "act", action="explode", constraint="true", reason="r")["kind"] == "bug"


def test_param(process: "subprocess.Popen[str]") -> None:
    assert ask(process, "param", name="EWMS_TEST") == "one word"
    assert ask(process, "param", name="EWMS_NOT_SET") is None


def test_ad_values() -> None:
    ad = classad2.ClassAd(
        '[a = 1; b = 1.5; c = "x"; d = true; e = undefined; f = error; g = {1, "2"}; h = [y = 1]; i = Memory + 1;'
        ' j = absTime("2024-01-01T00:00:00Z"); k = real("INF")]'
    )
    assert plain(ad) == {
        "a": 1,
        "b": 1.5,
        "c": "x",
        "d": True,
        "e": None,
        "f": "error",
        "g": '{ 1,"2" }',
        "h": "[ y = 1 ]",
        "i": "Memory + 1",
        "j": 'absTime("2024-01-01T00:00:00-00:00")',
        "k": 'real("INF")',
    }


@pytest.mark.parametrize("error", [ValueError("what"), RuntimeError("what"), MemoryError("what")])
def test_what_nobody_thought_of_is_a_bug_with_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def plain_fails(_ad: Any) -> None:
        raise error

    class OneAd:
        def query(self, *_args: Any, **_options: Any) -> list[str]:
            return ["ad"]

    monkeypatch.setattr(helper, "plain", plain_fails)
    monkeypatch.setattr(htcondor2, "Schedd", OneAd)
    reply = helper.answer(Request(1, "query", {"constraint": "true", "projection": []}))
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.message) == ("bug", f"{type(error).__name__}: what")
    assert "in plain_fails" in reply.failure.trace


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Remote history has been disabled on this schedd", "refused"),
        ("HISTORY undefined in remote configuration. No such related history to be queried.", "refused"),
        ("Remote side had parse errors in history file", "refused"),
        ("Failed to launch history helper process", "refused"),
        ("Cowardly refusing to queue more than 1000 requests.", "unreachable"),
        ("Failed to receive history ad.", "unreachable"),
        ("Failed to receive end-of-message.", "unreachable"),
    ],
)
def test_which_texts_of_a_history_are_refusals(text: str, kind: str) -> None:
    assert helper.failure_kind("history", htcondor2.HTCondorException(text)) == kind
    assert helper.failure_kind("query", htcondor2.HTCondorException(text)) == "unreachable"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Failed to create job ad (late materialization), errmsg=ERROR: bad", "refused"),
        ("expected next ProcId to be 20000, but Schedd says -4", "refused"),
        ("expected next ProcId to be 3, but Schedd says -1", "unreachable"),
        ("Unable to commit transaction, SCHEDD:5:no more jobs", "refused"),
        ("Unable to commit transaction, ", "unreachable"),
        ("Unable to commit transaction, CEDAR:6001:Failed to connect", "unreachable"),
        ("Failed to create new cluster.", "unreachable"),
        ("Failed to connect to schedd, errmsg=SECMAN:2011:Connection closed", "unreachable"),
        ("Failed to send Cluster Ad", "unreachable"),
    ],
)
def test_which_texts_of_a_submit_are_refusals(text: str, kind: str) -> None:
    assert helper.failure_kind("submit", htcondor2.HTCondorException(text)) == kind
    assert helper.failure_kind("query", htcondor2.HTCondorException(text)) == "unreachable"


def test_the_helper_program_is_found_by_the_client() -> None:
    from ewms.tms.condor.schedd import DEFAULT_HELPER

    assert Path(DEFAULT_HELPER[0]).exists()
    assert DEFAULT_HELPER[1:] == ("-m", helper.__name__)
