"""A user's program that speaks to the queues with `oms-mqclient`, the field's client: it was not written by us.

    python -m ewms.testing.mqclient_program put QUEUE ADDRESS       one JSON value a line on stdin → messages
    python -m ewms.testing.mqclient_program get QUEUE ADDRESS N     N messages → one JSON value a line on stdout
    … --headers                                                     {"data": …, "headers": {…}} instead of the value

The token is read from the variable `QUEUE_TOKEN`, for a command line can be seen by everybody. It runs as a process of
its own because that client needs asyncio, and blocks in it.
"""

import argparse
import asyncio
import json
import os
import sys

from mqclient.queue import Queue

_GIVE_UP_AFTER_S = 600


async def put(queue: Queue) -> None:
    """Send each line of standard input."""
    async with queue.open_pub() as publisher:
        for line in sys.stdin:
            await publisher.send(json.loads(line))


async def get(queue: Queue, count: int, *, headers: bool) -> None:
    """Print `count` messages as they come."""
    received = 0
    async with queue.open_sub_manual_acking() as messages:
        async for message in messages.iter_messages():
            value = {"data": message.data, "headers": message.headers} if headers else message.data
            print(json.dumps(value), flush=True)  # noqa: T201  its output is its purpose
            await messages.ack(message)
            received += 1
            if received == count:
                return


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["put", "get"])
    parser.add_argument("queue")
    parser.add_argument("address")
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--headers", action="store_true")
    args = parser.parse_args()
    queue = Queue(
        "rabbitmq",
        address=args.address,
        name=args.queue,
        auth_token=os.environ.get("QUEUE_TOKEN", ""),
        timeout=_GIVE_UP_AFTER_S,
        prefetch=20,
    )
    asyncio.run(put(queue) if args.action == "put" else get(queue, args.count, headers=args.headers))


if __name__ == "__main__":
    main()
