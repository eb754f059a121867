"""The first words with a Pulsar broker, which tell whether it answers, and takes our token.

The client library does not tell: it takes a refusal for a broken connection and tries again until its time is over
(https://github.com/apache/pulsar-client-cpp/issues/227). So each time, before it is let loose, one connection is made
here, with the same address and token.
"""

import ssl
from typing import Final

import trio

from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.link import WireLost
from ewms.pilot.brokers.pulsaraddress import PulsarAddress
from ewms.pilot.brokers.pulsarprotocol import Answer, NotPulsar, answer_in, connect_frame
from ewms.secret import redact

HELLO_TIMEOUT: Final = 20.0
"""For one server (s)."""
# What a broker calls errors that stay: authentication, authorization, version; others mean that it is not ready.
_FOR_GOOD: Final = frozenset({3, 4, 10})


async def greet(where: PulsarAddress, name: str) -> None:
    """Connect to the first server that answers, and hang up; `name` is what it hears of us.

    Raises:
        BrokerRefused: it does not want us, or cannot prove who it is.
        WireLost: none answers.
    """
    trouble = ""
    for host, port in where.servers:
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                answer = await _ask(host, port, where, name)
        except trio.TooSlowError:
            trouble = f"no answer within {HELLO_TIMEOUT:g} s"
        except NotPulsar:
            trouble = "what answers is no Pulsar broker"
        except (OSError, trio.BrokenResourceError, WireLost) as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise BrokerRefused(f"the broker at {where} cannot be trusted: {error.__cause__}") from error
            trouble = redact(str(error) or str(error.__cause__))
        else:
            return _check(answer, where)
    raise WireLost(trouble)


def _check(answer: Answer, where: PulsarAddress) -> None:
    if answer.error is None:
        return
    text = redact(answer.text or f"error {answer.error}")
    if answer.error in _FOR_GOOD:
        raise BrokerRefused(f"the broker at {where} refused us: {text}")
    raise WireLost(text)


async def _ask(host: str, port: int, where: PulsarAddress, name: str) -> Answer:
    tcp = await trio.open_tcp_stream(host, port)
    stream = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host) if where.tls else tcp
    try:
        await stream.send_all(connect_frame(name, where.token.reveal()))
        received = bytearray()
        while (answer := answer_in(received)) is None:
            data = await stream.receive_some()
            if not data:
                raise WireLost("the connection was closed before an answer came")
            received += data
        return answer
    finally:
        await trio.aclose_forcefully(stream)
