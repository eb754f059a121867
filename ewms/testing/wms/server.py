"""The stand-in as a server: hypercorn on Trio, from a context manager."""

import logging
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, cast

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework

from ewms.secret import Secret
from ewms.testing.wms.app import REALM_PATH, make_app
from ewms.testing.wms.faults import Faults
from ewms.testing.wms.state import Queues, State
from ewms.testing.wms.store import Store
from ewms.testing.wms.tokens import TokenIssuer
from ewms.testing.wms.wire import Observer, Request, Wire

log = structlog.stdlib.get_logger(__name__)

_KEPT_REQUESTS: Final = 10_000


@attrs.frozen(eq=False)
class Standin:
    """A running stand-in."""

    address: str
    """For `EWMS_ADDRESS`."""
    state: State
    faults: Faults
    issuer: TokenIssuer
    requests: deque[Request]
    """The last 10,000 calls, in the order of arrival, control calls aside."""

    @property
    def token_url(self) -> str:
        """For `EWMS_TOKEN_URL`: the issuer."""
        return self.address + REALM_PATH

    @property
    def client_id(self) -> str:
        """For `EWMS_CLIENT_ID`."""
        return self.issuer.client_id

    @property
    def client_secret(self) -> Secret:
        """For `EWMS_CLIENT_SECRET`."""
        return self.issuer.client_secret

    def user_token(self) -> str:
        """A token for a user's calls, good for a day."""
        return self.issuer.make()

    def called(self, path_prefix: str = "/v1") -> list[tuple[str, str]]:
        """(method, path) of the calls so far, for assertions about their order."""
        return [(each.method, each.path) for each in self.requests if each.path.startswith(path_prefix)]


@asynccontextmanager
async def open_standin(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    db: Path | None = None,
    locations: Mapping[str, str | Iterable[str]],
    broker_type: str = "rabbitmq",
    broker_address: str = "localhost",
    broker_token: Secret = Secret(""),  # noqa: B008  immutable
    client_id: str = "ewms-standin",
    client_secret: Secret | None = None,
    token_lifetime: float = 300,
    needs_token: bool = True,
    page_size: int = 100,
    launch_delay: float = 0,
    observer: Observer | None = None,
) -> AsyncIterator[Standin]:
    """Run a stand-in while the context lasts; it is answering when this yields.

    Args:
        host: the address to listen at.
        port: the port; 0 takes a free one.
        db: keep the state in this SQLite file, and go on from it.
        locations: cluster location → the full host name of its schedd, or several.
        broker_type: what every queue is activated with, like the next two.
        broker_address: see there.
        broker_token: see there.
        client_id: who may ask for tokens.
        client_secret: its secret; by default a new one.
        token_lifetime: of a token from the token endpoint, in s.
        needs_token: whether calls without a valid token are refused.
        page_size: how many objects a page of a query has.
        launch_delay: how long a new workflow takes to `pending-starter`, in s; with 0 it is there when the user's
            call is answered.
        observer: sees every call before and after the WMS acts upon it, and may hold it or lose its answer.
    """
    schedds = {place: (names,) if isinstance(names, str) else tuple(names) for place, names in locations.items()}
    faults, requests = Faults(), deque[Request](maxlen=_KEPT_REQUESTS)
    issuer = TokenIssuer(client_id, client_secret or Secret(secrets.token_urlsafe(24)), token_lifetime)
    with closing(Store(db)) as store:
        state = State(store, schedds, Queues(broker_type, broker_address, broker_token), page_size)
        async with trio.open_nursery() as nursery:

            async def launch(workflow_id: str) -> None:
                if launch_delay:
                    nursery.start_soon(_launch, state, workflow_id, launch_delay)
                else:
                    await _launch(state, workflow_id, 0)

            for unfinished in state.not_launched():
                nursery.start_soon(_launch, state, unfinished, launch_delay)
            app = Wire(make_app(state, faults, issuer, launch, needs_token=needs_token), faults, requests, observer)
            binds: list[str] = await nursery.start(
                partial(serve, cast("Framework", app), _config(host, port), mode="asgi")
            )
            yield Standin(binds[0], state, faults, issuer, requests)
            nursery.cancel_scope.cancel()


def _config(host: str, port: int) -> Config:
    config = Config()
    # A socket of our own, because hypercorn leaks its one when the port is taken; from here on it is hypercorn's.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    config.bind = [f"fd://{socket.create_server((host, port), family=family).detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    return config


async def _launch(state: State, workflow_id: str, delay: float) -> None:
    for step in (state.activate, state.launch):
        await trio.sleep(delay / 2)
        step(workflow_id)
    log.info("workflow launched", workflow=workflow_id)
