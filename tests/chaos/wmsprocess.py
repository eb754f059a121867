"""The WMS stand-in as a process of its own, which can be killed and goes on from its file; its user; its controls."""

import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from ewms.secret import Secret
from ewms.testing.grounds import SCHEDD_NAME, Ground
from ewms.testing.pool.ports import free_ports
from ewms.testing.stand import LOCATION, User

_UP_WITHIN_S: Final = 60
_POLL_S: Final = 0.1
_TOKEN_LIFETIME_S: Final = 20
"""Tokens run out many times in a run."""


@attrs.define
class WmsProcess:
    """Start it, end it, switch faults on and off."""

    ground: Ground
    directory: Path
    broker_address: str
    """Where pilots are told that their broker is."""
    port: int = attrs.field(factory=lambda: free_ports(1)[0])
    process: trio.Process | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """A line for each call."""
        return self.directory / "wms.log"

    @property
    def access(self) -> dict[str, str]:
        """What it wrote for its TMS: variable → value."""
        lines = (self.directory / "wms.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    async def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        token_file = self._token_file()
        options: dict[str, object] = {
            "port": self.port,
            "location": f"{LOCATION}={SCHEDD_NAME}",
            "db": self.directory / "wms.db",
            "broker-type": self.ground.broker_type,
            "broker-address": self.broker_address,
            "broker-token-file": token_file,
            "env-file": self.directory / "wms.env",
            "token-lifetime": _TOKEN_LIFETIME_S,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "ewms", "wms-standin", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        with trio.fail_after(_UP_WITHIN_S):
            while not await self._answers():  # noqa: ASYNC110  another process sets no event
                await trio.sleep(_POLL_S)

    def _token_file(self) -> Path:
        path = self.directory / "broker.token"
        path.touch(mode=0o600)
        path.write_text(self.ground.broker_token.reveal())
        return path

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def fault(self, **fault: Any) -> None:
        """Switch a fault on; see `ewms.testing.wms.Fault`."""
        await self._control("POST", "faults", fault)

    async def clear(self) -> None:
        """Switch all faults off."""
        await self._control("DELETE", "faults")

    async def revoke(self) -> None:
        """No token that was handed out so far is good any more."""
        await self._control("DELETE", "tokens")

    async def _answers(self) -> bool:
        try:
            await self._control("GET", "faults")
        except httpx.HTTPError:
            return False
        return True

    async def _control(self, method: str, what: str, body: object = None) -> None:
        async with httpx.AsyncClient(timeout=10) as http:
            (await http.request(method, f"{self.address}/_standin/{what}", json=body)).raise_for_status()


class _Login(httpx.Auth):
    """A user who logs in again when his token is refused."""

    requires_response_body = True

    def __init__(self, access: dict[str, str]) -> None:
        self._access = access
        self._token = "none yet"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code != 401:
            return
        credentials = {
            "grant_type": "client_credentials",
            "client_id": self._access["EWMS_CLIENT_ID"],
            "client_secret": self._access["EWMS_CLIENT_SECRET"],
        }
        url = f"{self._access['EWMS_TOKEN_URL']}/protocol/openid-connect/token"
        self._token = (yield httpx.Request("POST", url, data=credentials)).json().get("access_token", "")
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class PatientUser(User):
    """Somebody who asks again while the WMS is away."""

    async def call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """One call, repeated while it fails; an order may then be there twice."""
        with trio.fail_after(_UP_WITHIN_S):
            while True:
                try:
                    return await super().call(method, path, body)
                except (httpx.HTTPError, ValueError):
                    await trio.sleep(_POLL_S)

    async def next_order(self) -> str:
        """The start order that the TMS would get now, as text."""
        answer = await self._http.get("/v1/tms/pending-starter/taskforces", params={"schedd": SCHEDD_NAME})
        return answer.text


@attrs.frozen
class Access:
    """`ewms.testing.stand.WmsAccess`, through a proxy."""

    address: str
    token_url: str
    client_id: str
    client_secret: Secret

    @classmethod
    def through(cls, wms: WmsProcess, port: int) -> "Access":
        """As it was written, but at another port of this machine."""
        said = wms.access
        proxied = f"127.0.0.1:{port}"
        return cls(
            f"http://{proxied}",
            said["EWMS_TOKEN_URL"].replace(f"127.0.0.1:{wms.port}", proxied),
            said["EWMS_CLIENT_ID"],
            Secret(said["EWMS_CLIENT_SECRET"]),
        )


@asynccontextmanager
async def open_wms_process(ground: Ground, directory: Path, broker_address: str) -> AsyncIterator[WmsProcess]:
    """It runs while the context lasts."""
    wms = WmsProcess(ground, directory, broker_address)
    await wms.start()
    try:
        yield wms
    finally:
        with trio.move_on_after(10, shield=True):
            await wms.kill()


@asynccontextmanager
async def logged_in(wms: WmsProcess) -> AsyncIterator[PatientUser]:
    """A user, who goes straight to the WMS."""
    async with httpx.AsyncClient(base_url=wms.address, auth=_Login(wms.access), timeout=10) as http:
        yield PatientUser(http)
