"""Broker addresses as users and the WMS write them."""

import pytest

from ewms.pilot.brokers.amqpaddress import AmqpAddress, parse_address
from ewms.pilot.brokers.base import BrokerRefused
from ewms.secret import Secret

TOKEN = Secret("a-queue-token")
NONE = Secret("")


def of(
    host: str,
    port: int = 5672,
    *,
    tls: bool = False,
    vhost: str = "/",
    user: str = "guest",
    password: Secret = Secret("guest"),  # noqa: B008
) -> AmqpAddress:
    return AmqpAddress(host=host, port=port, tls=tls, vhost=vhost, user=user, password=password)


@pytest.mark.parametrize(
    ("address", "token", "expected"),
    [
        ("host", NONE, of("host")),
        ("host:1234", NONE, of("host", 1234)),
        ("host/vh", NONE, of("host", vhost="vh")),
        ("host:1234/a%2Fb", NONE, of("host", 1234, vhost="a/b")),
        ("amqp://host/", NONE, of("host")),
        ("amqps://host", NONE, of("host", 5671, tls=True)),
        ("amqps://host:1/x", TOKEN, of("host", 1, tls=True, vhost="x", user="", password=TOKEN)),
        ("host", TOKEN, of("host", user="", password=TOKEN)),
        ("user@host", TOKEN, of("host", user="user", password=TOKEN)),
        ("user:pass-word@host", TOKEN, of("host", user="user", password=TOKEN)),
        ("user:pass-word@host", NONE, of("host", user="user", password=Secret("pass-word"))),
        (":pass-word@host", NONE, of("host", user="", password=Secret("pass-word"))),
        ("u%40x:p%3A%2F-long@host", NONE, of("host", user="u@x", password=Secret("p:/-long"))),
        ("[::1]:99", NONE, of("::1", 99)),
    ],
)
def test_addresses(address: str, token: Secret, expected: AmqpAddress) -> None:
    assert parse_address(address, token) == expected


@pytest.mark.parametrize("address", ["", "http://host", "amqp://", "host:port", "host:99999", "host?x=1", "/vhost"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BrokerRefused, match=r"not of the form \[amqp"):
        parse_address(address, NONE)


def test_an_error_never_shows_the_address_which_may_hold_a_password() -> None:
    with pytest.raises(BrokerRefused) as caught:
        parse_address("user:pass-word@host:port", NONE)
    assert "pass-word" not in str(caught.value)


def test_a_user_without_password_or_token() -> None:
    with pytest.raises(BrokerRefused, match="neither a password nor a token"):
        parse_address("user@host", NONE)


def test_an_address_prints_without_user_and_password() -> None:
    assert str(parse_address("amqps://user:pass-word@host/vh", NONE)) == "amqps://host:5671/vh"
    assert str(parse_address("[::1]", TOKEN)) == "amqp://[::1]:5672"
    assert "queue-token" not in repr(parse_address("host", TOKEN))
