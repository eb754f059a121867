"""Where a NATS server is and who we are there, as the pilot's settings say it."""

import pytest

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.natsaddress import QueueNames, parse_address
from ewms.secret import Secret

NO_TOKEN = Secret("")
TOKEN = Secret("the-token")


@pytest.mark.parametrize(
    ("address", "servers"),
    [
        ("host", ("nats://host:4222",)),
        ("host:1", ("nats://host:1",)),
        ("nats://host/", ("nats://host:4222",)),
        ("tls://host:2", ("tls://host:2",)),
        ("nats://[::1]:3", ("nats://[::1]:3",)),
        ("a, b:5", ("nats://a:4222", "nats://b:5")),
        ("nats://t@a:1,b", ("nats://a:1", "nats://b:4222")),
    ],
)
def test_servers(address: str, servers: tuple[str, ...]) -> None:
    assert parse_address(address, TOKEN).servers == servers


@pytest.mark.parametrize(
    ("address", "given", "token", "user", "password"),
    [
        ("host", NO_TOKEN, "", "", ""),
        ("host", TOKEN, "the-token", "", ""),
        ("nats://a%2Fb@host", NO_TOKEN, "a/b", "", ""),
        ("nats://old@host", TOKEN, "the-token", "", ""),
        ("nats://me:pw@host", NO_TOKEN, "", "me", "pw"),
        ("nats://me:pw@host", TOKEN, "", "me", "the-token"),
    ],
)
def test_who_we_are(address: str, given: Secret, token: str, user: str, password: str) -> None:
    where = parse_address(address, given)
    assert (where.token.reveal(), where.user, where.password.reveal()) == (token, user, password)


def test_tls_is_said_by_the_scheme() -> None:
    assert parse_address("tls://host", NO_TOKEN).tls
    assert not parse_address("host", NO_TOKEN).tls


def test_for_people_it_has_no_secrets() -> None:
    where = parse_address("nats://me:pw-of-mine@a,b", TOKEN)
    assert str(where) == "nats://a:4222,nats://b:4222"
    assert "pw-of-mine" not in repr(where)


@pytest.mark.parametrize(
    "address", ["", "amqp://host", "nats://", "host:port", "nats://host/x", "a,,b", "nats://h?x=1"]
)
def test_what_is_no_address_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(BrokerRefused, match="not of the form") as caught:
        parse_address(address, NO_TOKEN)
    assert not address or address not in str(caught.value).split()


def test_the_names_are_those_of_the_fields_client() -> None:
    queue = QueueNames("q")
    assert (queue.stream, queue.subject) == ("q-stream", "q-subject")
    assert queue.pull_subject == "$JS.API.CONSUMER.MSG.NEXT.q-stream.psub"


@pytest.mark.parametrize("queue", ["", "a.b", "a b", "a*", "a>", "a/b", "a\\b", "a\n"])
def test_a_name_that_cannot_be(queue: str) -> None:
    with pytest.raises(BrokerRefused, match="cannot be on NATS"):
        QueueNames(queue)
