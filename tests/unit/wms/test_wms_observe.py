"""Whoever watches the client hears of every attempt."""

import pytest
import trio

from ewms.testing.wms import open_standin
from ewms.wms.client import open_wms
from ewms.wms.errors import WMSError, WMSNotFound, WMSUnavailable
from ewms.wms.retry import Retry

Seen = list[tuple[str, type[WMSError] | None]]


async def test_answers_and_refusals_are_observed() -> None:
    seen: Seen = []

    def observe(call: str, fault: type[WMSError] | None, seconds: float) -> None:
        assert 0 <= seconds < 60
        seen.append((call, fault))

    async with (
        open_standin(locations={"here": "ap"}, needs_token=False) as standin,
        open_wms(standin.address, None, observe=observe) as wms,
    ):
        assert await wms.next_start_order("ap") is None
        with pytest.raises(WMSNotFound):
            await wms.taskforce("TF-1")
    assert seen == [("GET /tms/pending-starter/taskforces", None), ("GET /taskforces/TF-1", WMSNotFound)]


async def test_so_is_every_repetition() -> None:
    seen: Seen = []
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        retry = Retry(first=0.001, cap=0.001, attempts=3)
        async with open_wms(
            address, None, retry=retry, observe=lambda call, fault, _: seen.append((call, fault))
        ) as wms:
            with pytest.raises(WMSUnavailable):
                await wms.confirm_stop("TF-1")
    assert seen == [("POST /tms/condor-rm/taskforces/TF-1", WMSUnavailable)] * 3
