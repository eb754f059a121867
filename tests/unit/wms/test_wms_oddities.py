"""Hosts and tokens that no request can carry, lists with odd entries: others' mistakes, and no end of the TMS."""

import json

import httpx
import pytest
from structlog.testing import capture_logs

from ewms.secret import Secret
from ewms.wms.auth import Auth
from ewms.wms.client import open_wms
from ewms.wms.errors import WMSUnavailable
from ewms.wms.retry import Retry

ISSUER = "http://id.example.org"


async def ask(address: str, auth: Auth | None, transport: httpx.AsyncBaseTransport | None = None) -> object:
    async with open_wms(address, auth, retry=Retry(attempts=1), transport=transport) as wms:
        return await wms.next_start_order("here")


@pytest.mark.parametrize("host", ["wms..example.org", f"{'a' * 64}.example.org"])
async def test_a_host_that_cannot_be(host: str) -> None:
    with pytest.raises(WMSUnavailable, match=r"Unicode\w*Error"):
        await ask(f"http://{host}", None)


@pytest.mark.parametrize(
    ("endpoint", "token"),
    [
        ("http://[::1", "a-token"),
        ("http://", "a-token"),
        ("http://exa\u2100mple.org", "a-token"),
        ("http://id.example.org/token", "a t\xf6ken"),
        ("http://id.example.org/token", "half a pair \ud800"),
    ],
)
async def test_an_issuer_that_tells_nonsense(endpoint: str, token: str) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json={"token_endpoint": endpoint})
        return httpx.Response(200, content=json.dumps({"access_token": token, "expires_in": 100}))

    auth = Auth(ISSUER, "us", Secret("a-client-secret"))
    with pytest.raises(WMSUnavailable) as raised:
        await ask("http://wms.example.org", auth, httpx.MockTransport(answer))
    assert token not in str(raised.value)


async def test_of_a_list_only_what_makes_no_sense_is_left_out() -> None:
    listed = [{"taskforce_uuid": "TF-1", "cluster_id": [1]}, {"cluster_id": 2}, {"taskforce_uuid": "TF-3"}]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"taskforces": listed, "next_after": None}))
    async with open_wms("http://wms.example.org", None, transport=transport) as wms:
        with capture_logs() as logs:
            found = await wms.query_taskforces({}, ["taskforce_uuid", "cluster_id"])
    assert found == [{"taskforce_uuid": "TF-3"}]
    assert [each["error"].partition(":")[0] for each in logs if each["log_level"] == "error"] == [
        "cluster_id",
        "taskforce_uuid",
    ]
