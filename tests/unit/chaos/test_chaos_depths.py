"""The chaos run's own questions to the broker meet its faults, too: no answer then, and no end of the run."""

from types import SimpleNamespace, TracebackType
from typing import Self

import pika
import pytest

from ewms.secret import Secret
from tests.chaos.depths import Depth, rabbit_depths


class Connection:
    """pika's, as far as it is used: every queue has 7 messages and 2 consumers, or none of them answers."""

    on_declare: Exception | None = None
    on_exit: Exception | None = None

    def __init__(self, _parameters: pika.ConnectionParameters) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.on_exit is not None:
            raise self.on_exit

    def channel(self) -> Self:
        return self

    def queue_declare(self, _queue: str, *, passive: bool) -> SimpleNamespace:
        assert passive
        if self.on_declare is not None:
            raise self.on_declare
        return SimpleNamespace(method=SimpleNamespace(message_count=7, consumer_count=2))


@pytest.mark.parametrize(
    ("on_exit", "expected"),
    [
        (None, {"a": Depth(7, 2), "b": Depth(7, 2)}),
        (pika.exceptions.StreamLostError(), None),
        (ConnectionResetError(), None),
        (AttributeError("'NoneType' object has no attribute 'is_open'"), None),
    ],
    ids=["answers", "amqp-error", "os-error", "a-channel-closed-while-it-was-opened"],
)
async def test_a_broker_that_does_not_answer_is_no_error(
    on_exit: Exception | None, expected: dict[str, Depth] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pika, "BlockingConnection", Connection)
    monkeypatch.setattr(Connection, "on_exit", on_exit)
    assert await rabbit_depths("ewms@127.0.0.1:1", Secret("token"), ["a", "b"]) == expected


@pytest.mark.parametrize(
    ("code", "expected"), [(404, {"a": Depth(), "b": Depth()}), (406, None)], ids=["no-queue", "a-fault"]
)
async def test_only_a_queue_that_is_not_there_is_empty(
    code: int, expected: dict[str, Depth] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pika, "BlockingConnection", Connection)
    monkeypatch.setattr(Connection, "on_declare", pika.exceptions.ChannelClosedByBroker(code, "why"))
    assert await rabbit_depths("ewms@127.0.0.1:1", Secret("token"), ["a", "b"]) == expected
