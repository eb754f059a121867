"""Events of every kind, sent with `oms-mqclient`, through pilots on the pool, and read with `oms-mqclient`."""

import base64
import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from asking import DEADLINE_S, request, stopped

from ewms.pilot import events
from ewms.pilot.brokers import open_broker
from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import Pool

pytestmark = pytest.mark.pool

COPY: Final = "cp {{INFILE}} {{OUTFILE}}"
# Hexadecimal digits: not even half of it can be compressed away.
LARGE: Final = secrets.token_hex(2_500_000)
TEXTS: Final = ["", " ", "text\r\n\0\n", "ümläut ✓ 🜁", '{"not": "parsed"}', LARGE]
JSON_VALUES: Final[list[Any]] = [0, 1.5, None, True, [], {}, {"ü🜁": [1, {"b": None}], "": "\r\n\0"}, [LARGE]]
BINARY: Final = bytes(range(256))


@pytest.fixture
def ground(pool: "Pool") -> Ground:
    """Where `oms-mqclient`'s broker is."""
    return pool_ground(pool, pool.job_dir.parent)


async def read_with_mqclient(ground: Ground, queue: str, count: int) -> list[dict[str, Any]]:
    program = [sys.executable, "-m", "ewms.testing.mqclient_program"]
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            [*program, "get", queue, ground.broker_address, str(count), "--headers"],
            env={"QUEUE_TOKEN": ground.broker_token.reveal()},
            capture_stdout=True,
            stderr=subprocess.DEVNULL,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def in_order(values: list[Any]) -> list[Any]:
    return sorted(values, key=json.dumps)


async def test_text_and_binary(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(request(ground, COPY, workers=1, EWMS_PILOT_MAX_CONCURRENT_TASKS=2))
        await ground.queues.put(workflow.queue_in, TEXTS)
        # That client cannot send bytes; a pilot's output can be bytes, and another pilot's input then.
        async with (
            open_broker(ground.broker_type, ground.broker_address, ground.broker_token) as broker,
            broker.sink(workflow.queue_in) as sink,
        ):
            await sink.publish(events.encode(BINARY), message_id="binary")
        received = await read_with_mqclient(ground, workflow.queue_out, len(TEXTS) + 1)
        await stopped(stand, workflow)
    (binary,) = [message for message in received if events.DATA_ENCODING in message["headers"]]
    assert binary["headers"][events.DATA_ENCODING] == "base64"
    assert base64.b64decode(binary["data"], validate=True) == BINARY
    received.remove(binary)
    assert in_order([message["data"] for message in received]) == in_order(TEXTS)
    ids = {message["headers"][events.INPUT_EVENT_ID] for message in received}
    assert len(ids) == len(TEXTS)


async def test_json(ground: Ground, work_dir: Path) -> None:
    extensions = {"EWMS_PILOT_INFILE_EXT": "json", "EWMS_PILOT_OUTFILE_EXT": ".json"}
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(request(ground, COPY, workers=2, **extensions))
        await ground.queues.put(workflow.queue_in, JSON_VALUES)
        received = await read_with_mqclient(ground, workflow.queue_out, len(JSON_VALUES))
        await stopped(stand, workflow)
    assert in_order([message["data"] for message in received]) == in_order(JSON_VALUES)
    assert {message["headers"][events.ATTEMPT] for message in received} == {1}
