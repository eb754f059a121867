"""The broker client that the pilot uses, alone in asyncio: each event is published again, confirmed, and acknowledged.

    python aiormq_alone.py COUNT IN_FLIGHT INCOMING OUTGOING        with ADDRESS and TOKEN in the environment

Nothing is decoded, no file is written, no task is run: what a pilot costs beyond this is its own. It prints a JSON
object.
"""

import asyncio
import json
import os
import sys
import time

import aiormq
from aiormq.abc import DeliveredMessage


async def main(count: int, in_flight: int, incoming: str, outgoing: str) -> dict[str, float]:
    user, _, place = os.environ["ADDRESS"].partition("@")
    connection = await aiormq.connect(f"amqp://{user}:{os.environ['TOKEN']}@{place}/")
    source = await connection.channel(publisher_confirms=False)
    sink = await connection.channel(publisher_confirms=True)
    done, ended = 0, asyncio.Event()

    async def handle(message: DeliveredMessage) -> None:
        nonlocal done
        properties = aiormq.spec.Basic.Properties(delivery_mode=2, message_id=str(message.delivery_tag))
        await sink.basic_publish(message.body, routing_key=outgoing, properties=properties, mandatory=True)
        await source.basic_ack(message.delivery_tag or 0)
        done += 1
        if done == count:
            ended.set()

    await source.basic_qos(prefetch_count=in_flight)
    began, cpu = time.perf_counter(), time.process_time()
    await source.basic_consume(incoming, handle)
    await ended.wait()
    figures = {"cpu_s": time.process_time() - cpu, "rate": count / (time.perf_counter() - began)}
    await connection.close()
    return figures


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))))
