"""The embedded schedd's helper: relays the lines of `ewms.tms.condor.base` to the daemon (standard library only).

python -m ewms.testing.schedd.helper --socket DIR/schedd.sock
"""

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20


def _connect(path: Path) -> socket.socket:
    # Through the directory's descriptor: the name of a Unix socket may only have 107 bytes.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        return connection
    finally:
        os.close(directory)


def _relayed(line: bytes, daemon: socket.socket) -> bytes:
    daemon.sendall(line)
    reply = bytearray()
    while not reply.endswith(b"\n") and (piece := daemon.recv(_PIECE)):
        reply += piece
    return bytes(reply)


def _unreachable(line: bytes, reason: object) -> bytes:
    error = {"kind": "unreachable", "message": f"the embedded schedd does not answer: {reason}"}
    return json.dumps({"id": json.loads(line)["id"], "error": error}).encode() + b"\n"


def main() -> None:
    """Relay until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    path = parser.parse_args().socket
    daemon: socket.socket | None = None
    for line in sys.stdin.buffer:
        try:
            daemon = daemon or _connect(path)
            reply = _relayed(line, daemon) or _unreachable(line, "it closed the connection")
        except OSError as error:
            reply, daemon = _unreachable(line, error), None
        try:
            sys.stdout.buffer.write(reply)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(0)  # the TMS has died; nobody reads the answer


if __name__ == "__main__":
    main()
