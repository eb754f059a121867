"""Frames of Pulsar's protocol: any bytes are an answer, the beginning of one, or no Pulsar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.pilot.brokers.pulsarprotocol import Answer, NotPulsar, answer_in, batch_size, connect_frame

# As a broker's library encodes them: CONNECTED (version "x", protocol 19); ERROR 3 "Failed", for request -1.
CONNECTED = bytes.fromhex("0000000d 00000009 0803 1a05 0a0178 1013")
ERROR = bytes.fromhex("0000001d 00000019 080e 7215 08ffffffffffffffffff01 1003 1a06") + b"Failed"
# (ledger 300, entry 2, partition -1, batch index 0, batch size 4)
IN_A_BATCH = bytes.fromhex("08ac02 1002 18ffffffffffffffffff01 2000 3004")


def test_what_a_client_says_first() -> None:
    with_token = bytes.fromhex("00000022 0000001e 0802 121a 0a026d65 200f 2a05") + b"token" + b"\x1a\x0b"
    assert connect_frame("me", "some-secret") == with_token + b"some-secret"
    assert connect_frame("me", "") == bytes.fromhex("0000000e 0000000a 0802 1206 0a026d65 200f")


@pytest.mark.parametrize(("frame", "answer"), [(CONNECTED, Answer()), (ERROR, Answer(3, "Failed"))])
def test_an_answer_is_known_when_all_of_it_is_there(frame: bytes, answer: Answer) -> None:
    for end in range(len(frame)):
        assert answer_in(frame[:end]) is None
    assert answer_in(frame) == answer
    assert answer_in(frame + b"more") == answer


@pytest.mark.parametrize("received", [b"HTTP/1.1 400 Bad Request", b"SSH-2.0-x\r\n"])
def test_who_speaks_otherwise_is_no_broker(received: bytes) -> None:
    with pytest.raises(NotPulsar):
        answer_in(received)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_none_or_no_pulsar(noise: bytes) -> None:
    frame = (4 + len(noise)).to_bytes(4) + len(noise).to_bytes(4) + noise
    for received in (noise, frame):
        try:
            answer = answer_in(received)
        except NotPulsar:
            continue
        assert answer is None or isinstance(answer, Answer)


def test_the_size_of_a_batch() -> None:
    assert batch_size(IN_A_BATCH) == 4
    assert batch_size(IN_A_BATCH[:-2]) == 1
