"""What the pilot image must have for other queues and images than the usual ones, in container-universe jobs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from asking import DEADLINE_S, request, stopped

from ewms.pilot import events
from ewms.pilot.brokers import open_broker
from ewms.secret import Secret
from ewms.testing.grounds import Ground, pool_ground
from ewms.testing.stand import open_stand

if TYPE_CHECKING:
    from ewms.testing.pool import NatsServer, Pool

pytestmark = pytest.mark.pool

UPPER = "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'"
WORDS = ["one", "two", "three", "four"]


@attrs.frozen
class NatsQueues:
    """Queues on NATS, spoken to by our own adapter."""

    address: str
    token: Secret
    client: str = "our own client"

    async def put(self, queue: str, values: Iterable[Any]) -> None:
        async with open_broker("nats", self.address, self.token) as broker, broker.sink(queue) as sink:
            for number, value in enumerate(values):
                await sink.publish(events.encode(value), message_id=f"{number}")

    async def get(self, queue: str, count: int, on_value: Callable[[Any], None]) -> None:
        async with (
            open_broker("nats", self.address, self.token) as broker,
            broker.source(queue, prefetch=count) as source,
        ):
            for _ in range(count):
                delivery = await source.receive()
                await source.ack(delivery)
                on_value(events.decode(delivery.body, delivery.message_id).data)


async def flows(ground: Ground, work_dir: Path, *, must_be_directory: bool = True) -> bool:
    """Whether a workflow's events come out as they should."""
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(
            request(ground, UPPER, _EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT=str(must_be_directory))
        )
        await ground.queues.put(workflow.queue_in, WORDS)
        results: list[str] = []
        with trio.fail_after(DEADLINE_S):
            await ground.queues.get(workflow.queue_out, len(WORDS), results.append)
        await stopped(stand, workflow)
    return sorted(results) == sorted(word.upper() for word in WORDS)


async def test_a_workflow_that_nats_feeds(pool: "Pool", nats: "NatsServer", work_dir: Path) -> None:
    ground = attrs.evolve(
        pool_ground(pool, pool.job_dir.parent),
        broker_type="nats",
        broker_address=nats.address,
        broker_token=nats.token,
        queues=NatsQueues(nats.address, nats.token),
    )
    assert await flows(ground, work_dir)


async def test_an_image_file_becomes_a_directory_on_the_worker(pool: "Pool", work_dir: Path) -> None:
    image = "/images/task.sif"
    # Without compression: that takes longer than all the rest.
    options = ["--mksquashfs-args", "-noI -noD -noF -noX"]
    await pool.run(["apptainer", "--silent", "build", *options, image, pool.task_image], user="root")
    ground = attrs.evolve(pool_ground(pool, pool.job_dir.parent), task_image=image)
    assert await flows(ground, work_dir, must_be_directory=False)
