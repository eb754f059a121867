"""The client of the helper processes, with a helper program that hangs, dies and talks garbage."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from ewms.tms.condor import schedd as schedd_module
from ewms.tms.condor.base import CondorBroken, CondorError, CondorRefused, CondorUnreachable, Schedd, Value
from ewms.tms.condor.schedd import open_schedd

FAKE = Path(__file__).with_name("fake_schedd_helper.py")


class Fake:
    """The command line of the fake, and which processes were started with it."""

    def __init__(self, pids: Path) -> None:
        self._pids = pids
        self.command = [sys.executable, "-I", "-S", str(FAKE), str(pids)]

    def started(self) -> list[int]:
        return [int(line) for line in self._pids.read_text().split()] if self._pids.exists() else []

    def alive(self) -> list[int]:
        return [pid for pid in self.started() if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until_started(fake: Fake, helpers: int) -> None:
    with trio.fail_after(60):
        while len(fake.started()) < helpers:  # noqa: ASYNC110  another process writes it
            await trio.sleep(0.01)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "pids")


async def ask(schedd: Schedd, how: str) -> dict[str, Value]:
    (ad,) = await schedd.query(how, ["ClusterId"])
    return dict(ad)


async def test_helpers_start_lazily_and_are_kept(fake: Fake) -> None:
    async with open_schedd(fake.command) as schedd:
        assert fake.started() == []
        first = await ask(schedd, "x")
        assert await ask(schedd, "y") == first | {"args": {**args("y")}}
        assert len(fake.started()) == 1
    assert fake.alive() == []


async def test_a_helper_that_answered_many_calls_is_replaced(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedd_module, "CALLS_PER_HELPER", 3)
    async with open_schedd(fake.command) as schedd:
        for number in range(2):
            await ask(schedd, "x")
            with pytest.raises(CondorRefused):
                await ask(schedd, "refused told so")
            await ask(schedd, "y")
            assert len(fake.started()) == number + 1
            assert fake.alive() == []
        await ask(schedd, "z")
        assert len(fake.started()) == 3


def args(constraint: str) -> dict[str, Any]:
    return {"constraint": constraint, "projection": ["ClusterId"], "cluster_ads": False}


async def test_a_hanging_query_does_not_delay_an_act(fake: Fake) -> None:
    async with open_schedd(fake.command) as schedd, trio.open_nursery() as nursery:
        nursery.start_soon(ask, schedd, "hang")
        await until_started(fake, 1)
        with pytest.raises(CondorRefused, match="told so"):
            await schedd.act("remove", "refused told so", reason="r")
        assert len(fake.started()) == 2
        nursery.cancel_scope.cancel()
    assert fake.alive() == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("end", "ended (exit status 0)"),
        ("killed", "ended (exit status -9)"),
        ("unreachable no daemon", "no daemon"),
    ],
)
async def test_without_an_answer_the_schedd_is_unreachable_and_the_next_call_has_a_new_helper(
    fake: Fake, how: str, words: str
) -> None:
    async with open_schedd(fake.command) as schedd:
        with pytest.raises(CondorUnreachable) as failure:
            await ask(schedd, how)
        assert words in str(failure.value)
        assert fake.alive() == []
        await ask(schedd, "fine")
        assert len(fake.started()) == 2


async def test_a_call_that_is_overdue_is_given_up_with_its_helper(fake: Fake) -> None:
    async with open_schedd(fake.command, call_timeout=3) as schedd:
        with pytest.raises(CondorUnreachable, match="no answer to query within 3 s"):
            await ask(schedd, "hang")
        assert fake.alive() == []
        with trio.fail_after(60):
            while True:
                with suppress(CondorUnreachable):  # a busy machine may need longer than that to start another one
                    await ask(schedd, "fine")
                    break
    assert fake.alive() == []


@pytest.mark.parametrize(
    ("how", "words", "trace"),
    [
        ("die", "ended (exit status 1): dying words", "dying words"),
        ("crash", "ended (exit status 1): ZeroDivisionError: integer division or modulo", "Traceback (most recent"),
        ("fault", "ended (exit status -11)", ""),
        ("garbage", "answered with garbage", ""),
        ("half", "ended (exit status 3)", ""),
        ("strange", "answered request 99 in place of ", ""),
        ("bug unexpected keyword", "unexpected keyword", "where it was"),
    ],
)
async def test_what_is_wrong_with_the_helper_itself_is_told_with_its_traceback_and_the_next_call_has_a_new_one(
    fake: Fake, how: str, words: str, trace: str
) -> None:
    async with open_schedd(fake.command) as schedd:
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(CondorBroken) as failure:
                    await ask(schedd, how)
                assert words in str(failure.value)
        first, second = [line for line in logs if line["log_level"] == "error"]
        assert (first["event"], first["call"]) == ("the schedd helper is broken", "query")
        assert words in first["error"]
        assert trace in first.get("traceback", "")
        assert "traceback" not in second  # once
        assert fake.alive() == []
        await ask(schedd, "fine")
        assert len(fake.started()) == 3


async def test_the_queue_is_not_asked_while_a_killed_submit_may_still_get_through(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedd_module, "REAP_TIMEOUT", 0.1)
    async with open_schedd(fake.command) as schedd:
        with monkeypatch.context() as context:
            context.setattr(trio.Process, "kill", lambda _self: None)
            await cancel_when_started(fake, partial(schedd.act, "remove", "hang", reason="r"))
            (pid,) = fake.alive()
        with pytest.raises(CondorUnreachable, match=f"pid {pid}.* is not gone"):
            await ask(schedd, "x")
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(60):
            while is_alive(pid):
                with suppress(CondorUnreachable):
                    await ask(schedd, "x")
        await ask(schedd, "x")


async def test_a_refusal_keeps_the_helper(fake: Fake) -> None:
    async with open_schedd(fake.command) as schedd:
        with pytest.raises(CondorRefused, match="in HTCondor's words"):
            await ask(schedd, "refused in HTCondor's words")
        await ask(schedd, "fine")
        assert len(fake.started()) == 1


async def test_a_helper_that_is_not_there_is_broken() -> None:
    async with open_schedd(["/no/such/program"]) as schedd:
        with pytest.raises(CondorBroken, match="did not start"):
            await ask(schedd, "x")


async def cancel_when_started(fake: Fake, call: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await until_started(fake, 1)
        nursery.cancel_scope.cancel()


async def test_nothing_is_asked_in_the_place_of_a_killed_helper_until_it_is_gone(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the kernel: its submit could still get through behind a look-up's back."""
    monkeypatch.setattr(schedd_module, "REAP_TIMEOUT", 0.1)
    async with open_schedd(fake.command) as schedd:
        with monkeypatch.context() as context, capture_logs() as logs:
            context.setattr(trio.Process, "kill", lambda _self: None)
            await cancel_when_started(fake, partial(ask, schedd, "hang"))
            (pid,) = fake.alive()
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "schedd helper does not die: nothing is asked in its place until it is gone"
        ]
        for _ in range(2):
            with pytest.raises(CondorUnreachable, match=f"pid {pid}.* is not gone"):
                await ask(schedd, "x")
        assert fake.started() == [pid]
        with pytest.raises(CondorRefused, match="told so"):  # by the other helper, which is not concerned
            await schedd.act("remove", "refused told so", reason="r")
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(30):
            while is_alive(pid):
                with suppress(CondorUnreachable):
                    await ask(schedd, "x")
        await ask(schedd, "x")
    assert fake.alive() == []


async def test_large_answers_and_floods_of_stderr_pass(fake: Fake) -> None:
    async with open_schedd(fake.command) as schedd:
        assert len(str((await ask(schedd, "large"))["text"])) == 3_000_000
        await ask(schedd, "flood")
        assert len(fake.started()) == 1


async def test_calls_of_many_tasks_take_turns(fake: Fake) -> None:
    answers: list[dict[str, Any]] = []

    async def one(text: str) -> None:
        answers.append(await ask(schedd, text))

    async with open_schedd(fake.command) as schedd:
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(one, f"n{n}")
        assert len(fake.started()) == 1
    assert {answer["args"]["constraint"] for answer in answers} == {f"n{n}" for n in range(10)}


async def test_the_turn_of_a_cancelled_call_is_given_on(fake: Fake) -> None:
    async with open_schedd(fake.command) as schedd:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, schedd, "hang")
            await until_started(fake, 1)
            waiting = trio.CancelScope()

            async def wait_and_be_cancelled() -> None:
                with waiting:
                    await ask(schedd, "never asked")

            nursery.start_soon(wait_and_be_cancelled)
            await trio.lowlevel.checkpoint()
            waiting.cancel()
            await trio.lowlevel.checkpoint()
            assert len(fake.alive()) == 1
            nursery.cancel_scope.cancel()
        assert fake.alive() == []
        await ask(schedd, "fine")


@pytest.mark.parametrize("start_before", [False, True], ids=["starting", "started"])
async def test_cancelled_at_any_await_no_helper_is_left_and_the_next_call_works(fake: Fake, start_before: bool) -> None:
    for ticks in range(14):
        async with open_schedd(fake.command) as schedd:
            if start_before:
                await ask(schedd, "fine")
            before = len(fake.alive())
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_after, ticks, scope.cancel)
                    nursery.start_soon(ask, schedd, "hang")
            assert scope.cancelled_caught
            # Only a call that was cancelled before its turn leaves the helper as it is.
            assert len(fake.alive()) == 0 or (ticks == 0 and len(fake.alive()) == before)
            if ticks % 7 == 6:
                await ask(schedd, "fine")
        assert fake.alive() == []


async def _cancel_after(ticks: int, cancel: Callable[[], None]) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    if ticks > 10:
        await trio.sleep(0.02)
    cancel()


async def test_a_helper_that_ignores_the_end_of_its_input_is_killed(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedd_module, "CLOSE_GRACE", 0.1)
    async with open_schedd(fake.command) as schedd:
        await ask(schedd, "stdin-ignored")
    assert fake.alive() == []


async def test_an_error_of_the_body_passes_unwrapped_and_helpers_end(fake: Fake) -> None:
    async def fail() -> None:
        async with open_schedd(fake.command) as schedd:
            await ask(schedd, "fine")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert fake.alive() == []


async def test_pass_fds_and_env_reach_the_helper(tmp_path: Path) -> None:
    program = (
        "import json,os,sys\n"
        "fd=int(sys.argv[1]); sys.stdin.readline()\n"
        "print(json.dumps({'id': 1, 'ok': os.readlink(f'/proc/self/fd/{fd}') + os.environ['MARK']}), flush=True)\n"
    )
    with (tmp_path / "lock").open("w") as lock:
        command = [sys.executable, "-I", "-S", "-c", program, str(lock.fileno())]
        async with open_schedd(command, pass_fds=[lock.fileno()], env={"MARK": "!"}) as schedd:
            assert await schedd.parse("x") == f"{tmp_path}/lock!"


async def test_what_each_call_sends(fake: Fake) -> None:
    program = (
        "import json,sys\n"
        "for line in sys.stdin:\n"
        "    r=json.loads(line); v={'cluster_id': 7, 'n_procs': 3, 'succeeded': 2, 'failed': 1}\n"
        "    sys.stderr.write(line); sys.stderr.flush()\n"
        "    v = [r['args']] if r['call'] in ('query', 'history') else v if r['call'] in ('submit', 'act') else line\n"
        "    print(json.dumps({'id': r['id'], 'ok': v}), flush=True)\n"
    )
    async with open_schedd([sys.executable, "-I", "-S", "-c", program]) as schedd:
        submitted = await schedd.submit({"log": "/x"}, count=3)
        assert (submitted.cluster_id, submitted.n_procs) == (7, 3)
        acted = await schedd.act("hold", "ClusterId == 7", reason="why")
        assert (acted.succeeded, acted.failed) == (2, 1)
        assert await schedd.history("c", ["A"], match=1, since="5") == [
            {"constraint": "c", "projection": ["A"], "match": 1, "since": "5"}
        ]
        assert '"name": "LOG"' in str(await schedd.param("LOG"))


async def test_every_call_can_be_watched(fake: Fake) -> None:
    seen: list[tuple[str, type[CondorError] | None]] = []

    def observe(call: str, fault: type[CondorError] | None, seconds: float) -> None:
        assert 0 <= seconds < 60
        seen.append((call, fault))

    async with open_schedd(fake.command, observe=observe) as schedd:
        await ask(schedd, "fine")
        with pytest.raises(CondorRefused):
            await ask(schedd, "refused no")
        with pytest.raises(CondorUnreachable):
            await ask(schedd, "end")
        with pytest.raises(CondorBroken):
            await ask(schedd, "die")
    assert [fault for _, fault in seen] == [None, CondorRefused, CondorUnreachable, CondorBroken]
