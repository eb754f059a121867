"""A SIGTERM that nobody could take: what the job's ad says of it, and what the pilot makes of that."""

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from ewms.pilot import lostsignal
from ewms.pilot.chirp import ChirpError
from ewms.pilot.lostsignal import look_for_lost_signal
from ewms.pilot.settings import PilotSettings, read
from ewms.pilot.stopping import Stopping

NOTHING = "UNDEFINED"
ASKED = '"Claim deactivated"'
LEFT_OVER = '"its container did not start: \\"no such image\\""'
AD_AT_START = f"JobStatus = 2\nVacateReason = {LEFT_OVER}\nVacateReasonCode = 1005\n"


@attrs.define
class Ad:
    """What chirp shows, look by look."""

    answers: Iterator[str | ChirpError]
    looks: list[float] = attrs.field(factory=list)

    async def get(self, name: str) -> str:
        assert name == "VacateReason"
        await trio.lowlevel.checkpoint()
        self.looks.append(trio.current_time())
        answer = next(self.answers)
        if isinstance(answer, ChirpError):
            raise answer
        return answer

    def close(self) -> None:
        pass


def settings(*, htchirp: bool = True) -> PilotSettings:
    return read(
        {
            "EWMS_PILOT_TASK_IMAGE": "none",
            "EWMS_PILOT_TASK_ARGS": "true",
            "EWMS_PILOT_QUEUE_INCOMING": "in",
            "EWMS_PILOT_QUEUE_OUTGOING": "out",
            "EWMS_PILOT_QUEUE_INCOMING_BROKER_TYPE": "local",
            "EWMS_PILOT_QUEUE_OUTGOING_BROKER_TYPE": "local",
            "EWMS_PILOT_QUEUE_INCOMING_BROKER_ADDRESS": "/q",
            "EWMS_PILOT_QUEUE_OUTGOING_BROKER_ADDRESS": "/q",
            "EWMS_PILOT_HTCHIRP": str(htchirp).lower(),
            "_CONDOR_CHIRP_CONFIG": "/chirp.config",
        }
    )


@pytest.mark.parametrize(
    ("answers", "evicted", "looks"),
    [
        ([NOTHING, NOTHING], False, [0, 10]),
        ([ASKED], True, [0]),
        ([NOTHING, ASKED], True, [0, 10]),
        ([ChirpError("away")], False, [0]),
        (["undefined", ""], False, [0, 10]),
        ([LEFT_OVER, LEFT_OVER], False, [0, 10]),
        ([LEFT_OVER, ASKED], True, [0, 10]),
    ],
)
async def test_looks(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str | ChirpError],
    evicted: bool,
    looks: list[float],
) -> None:
    ad, stopping, began = Ad(iter(answers)), Stopping(grace=100), trio.current_time()
    monkeypatch.setattr(lostsignal, "ChirpClient", lambda _config, *, to_log: ad)
    await look_for_lost_signal(settings(), AD_AT_START, stopping)
    assert stopping.evicted is evicted
    assert [look - began for look in ad.looks] == looks


async def test_a_signal_that_was_not_lost_is_not_counted_twice(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Stopping(grace=100)
    monkeypatch.setattr(lostsignal, "ChirpClient", lambda _config, *, to_log: Ad(iter([ASKED])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_for_lost_signal, settings(), "", stopping)
        await trio.sleep(1)
        stopping.evict()
    with stopping.task() as scope:
        assert scope.deadline > trio.current_time() + 50  # a second one would have ended the grace


async def test_without_chirp_nothing_is_asked(tmp_path: Path) -> None:
    stopping = Stopping(grace=100)
    await look_for_lost_signal(settings(htchirp=False), "", stopping)
    assert not stopping.evicted
