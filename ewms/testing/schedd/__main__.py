"""`python -m ewms.testing.schedd`: run an embedded schedd by hand."""

import argparse
import os
import shlex
import socket
from pathlib import Path

import trio

from ewms import logs
from ewms.testing.schedd import default_entrypoint
from ewms.testing.schedd.daemon import Options, main


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ewms.testing.schedd", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="its socket and the workers' sandboxes")
    parser.add_argument("--slots", type=int, default=4, help="workers that run at a time (4)")
    parser.add_argument("--entrypoint", type=shlex.split, help="what a worker runs (the pilot)")
    parser.add_argument("--name", default=socket.getfqdn(), help="the access point's name (this host's)")
    parser.add_argument("--machine", type=_pair, action="append", default=[], metavar="ATTRIBUTE=EXPRESSION")
    parser.add_argument("--policy-interval", type=float, default=1.0, help="s between periodic expressions (1)")
    parser.add_argument("--tied", action="store_true", help="end when standard input closes")
    return parser.parse_args()


def _run() -> None:
    arguments = _parse()
    logs.configure("DEBUG" if arguments.tied else "INFO")
    arguments.dir.mkdir(parents=True, exist_ok=True)
    if not arguments.tied:
        print(f"an embedded schedd with {arguments.slots} slots in {arguments.dir}; Ctrl-C ends it and its workers")  # noqa: T201
    options = Options(
        directory=arguments.dir,
        slots=arguments.slots,
        entrypoint=arguments.entrypoint or default_entrypoint(),
        name=arguments.name,
        machine=dict(arguments.machine),
        policy_interval=arguments.policy_interval,
    )
    trio.run(lambda: main(options, dict(os.environ), tied=arguments.tied))


if __name__ == "__main__":
    _run()
