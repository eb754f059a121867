"""Message brokers behind one protocol (`base.py`).

`open_broker` picks the adapter by its type's name and imports only that one, so that a pilot loads no client that it
does not use.
"""

import importlib
import sys
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs

from ewms.pilot.brokers.base import Broker, BrokerRefused
from ewms.secret import Secret


@attrs.frozen
class Adapter:
    """Where the code for a broker type is, and what it needs."""

    module: str
    """Has `connect(address, auth_token, *, give_up_after) -> AbstractAsyncContextManager[Broker]`."""
    extra: str
    """What of `ewms-htcondor` to install for it."""
    address: str = ""
    """Has `parse_address(address, auth_token)`, which raises `BrokerRefused`; "" where any text will do."""
    needs_asyncio: bool = True


ADAPTERS: Final = {
    "local": Adapter("ewms.pilot.brokers.local", extra="pilot", needs_asyncio=False),
    "nats": Adapter("ewms.pilot.brokers.nats", extra="nats", address="ewms.pilot.brokers.natsaddress"),
    "pulsar": Adapter(
        "ewms.pilot.brokers.pulsar", extra="pulsar", address="ewms.pilot.brokers.pulsaraddress", needs_asyncio=False
    ),
    "rabbitmq": Adapter("ewms.pilot.brokers.rabbitmq", extra="pilot", address="ewms.pilot.brokers.amqpaddress"),
}
"""Broker type → adapter."""

DEFAULT_GIVE_UP_AFTER: Final = 600.0
"""How long (s) a broker may be out of reach before its users are told `BrokerLost`."""


def check_address(broker_type: str, address: str, auth_token: Secret) -> None:
    """See what can be seen without a connection.

    Raises:
        BrokerRefused: no such broker type, or no address of one.
    """
    if module := _adapter(broker_type).address:
        importlib.import_module(module).parse_address(address, auth_token)


def open_broker(
    broker_type: str, address: str, auth_token: Secret, *, give_up_after: float = DEFAULT_GIVE_UP_AFTER
) -> AbstractAsyncContextManager[Broker]:
    """Connect to one broker; it is entered once the connection stands, and reconnects for up to `give_up_after` s.

    Raises (here, or when it is entered):
        BrokerRefused: no such broker type, its client cannot be used here, or the broker refused us.
        BrokerLost: the broker is out of reach, and trying again was given up.
    """
    adapter = _adapter(broker_type)
    if adapter.needs_asyncio and sys.version_info >= (3, 14):
        raise BrokerRefused(
            f"the {broker_type} adapter needs trio-asyncio, which does not work on Python "
            f"{sys.version_info.major}.{sys.version_info.minor} yet; run the pilot on Python 3.11 to 3.13"
        )
    try:
        module = importlib.import_module(adapter.module)
    except ImportError as error:
        raise BrokerRefused(
            f"the {broker_type} adapter needs a package that is not installed ({error}); "
            f"pip install 'ewms-htcondor[{adapter.extra}]'"
        ) from error
    broker: AbstractAsyncContextManager[Broker] = module.connect(address, auth_token, give_up_after=give_up_after)
    return broker


def _adapter(broker_type: str) -> Adapter:
    try:
        return ADAPTERS[broker_type]
    except KeyError:
        known = ", ".join(sorted(ADAPTERS))
        raise BrokerRefused(f"unknown broker type {broker_type!r}; known are: {known}") from None
