"""Where a Pulsar cluster is, as the pilot's settings say it."""

import pytest

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.pulsaraddress import parse_address
from ewms.secret import Secret

TOKEN = Secret("the-token")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("host", "pulsar://host:6650"),
        ("host:1", "pulsar://host:1"),
        ("pulsar://host/", "pulsar://host:6650"),
        ("pulsar+ssl://host", "pulsar+ssl://host:6651"),
        ("pulsar://a, b:5", "pulsar://a:6650,b:5"),
    ],
)
def test_servers(address: str, text: str) -> None:
    where = parse_address(address, TOKEN)
    assert str(where) == text
    assert where.token == TOKEN
    assert where.tls == text.startswith("pulsar+ssl")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "pulsar://",
        "http://host:8080",
        "host:port",
        "host:99999",
        "host/topic",
        "a,,b",
        "the-token@host",
        "pulsar://user:the-token@host",
        "pulsar://a,pulsar://b",
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(BrokerRefused, match="not of the form") as caught:
        parse_address(address, TOKEN)
    assert "the-token" not in str(caught.value)


def test_what_the_client_library_does_not_take_is_refused() -> None:
    with pytest.raises(BrokerRefused, match="no IPv6 number"):
        parse_address("pulsar://[::1]:3", TOKEN)
