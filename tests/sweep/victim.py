"""Run a TMS, or a schedd helper, that stops at each of its steps and asks the sweep whether it may go on.

    python victim.py GATE tms JOB_DIR
    python victim.py GATE helper (SCRIPT | -m MODULE) [ARGUMENT…]
    python victim.py GATE helper-without-history …      as if the schedd refused it

The program itself is the production one, untouched. A TMS's steps are what it changes on disk, seen through the
interpreter's audit events; a helper's are the lines that it gets and gives, seen by two threads between its pipes and
those of the TMS. (The WMS stand-in sees the rest.) Standard library only: a helper starts without site-packages.
"""

import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_SWEEP_IS_GONE = 70

Ask = Callable[[str], None]


def ask(gate: str, step: str) -> socket.socket:
    """Stop at a step until the sweep lets us go on; the connection is the sweep's word that it still lives."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(gate)
        connection.sendall(step.encode() + b"\n")
        answered = connection.recv(1)
    except OSError:
        answered = b""
    if not answered:
        os._exit(_SWEEP_IS_GONE)
    return connection


def begin(gate: str, role: str) -> Ask:
    """The first step; from now on this process dies with the sweep."""
    lifeline = ask(gate, f"{role}:started")

    def wait() -> None:
        lifeline.recv(1)
        os._exit(_SWEEP_IS_GONE)

    threading.Thread(target=wait, daemon=True).start()

    def go_on(step: str) -> None:
        ask(gate, step).close()

    return go_on


# --- the TMS ---


def run_tms(gate: str, job_dir: str) -> None:
    """`ewms tms`, held before everything that it changes in its job directory."""
    go_on = begin(gate, "tms")

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        step = disk_step(event, args, job_dir)
        if step is not None:
            go_on(step)

    sys.addaudithook(on_event)
    sys.argv = ["ewms", "tms"]
    from ewms.cli import main

    main()


def disk_step(event: str, args: tuple[Any, ...], job_dir: str) -> str | None:
    """What is about to be changed in the job directory, if anything is."""
    match event, args:
        case "open", (str() | os.PathLike() as target, _, int(flags)) if flags & _WRITING:
            verb = "open"
        case "os.rename", (_, target, *_):
            verb = "rename"
        case "os.remove" | "os.rmdir", (target, *_) if os.path.lexists(target):
            verb = "remove"
        case "os.mkdir", (target, *_) if not os.path.lexists(target):
            verb = "mkdir"
        case "os.truncate" | "fcntl.flock", (target, *_):
            verb = event.rpartition(".")[2]
        case _:
            return None
    if isinstance(target, int):
        target = os.readlink(f"/proc/self/fd/{target}")  # noqa: PTH115  pathlib is slow to import
    path = os.fsdecode(target)
    return f"disk:{verb}:{os.path.relpath(path, job_dir)}" if path.startswith(job_dir) else None


# --- the helper ---


def run_helper(gate: str, program: list[str], *, has_history: bool) -> None:
    """The helper, held before it gets a request and before it gives the reply."""
    go_on = begin(gate, "helper")
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    request_read, request_write = os.pipe()
    reply_read, reply_write = os.pipe()
    os.dup2(request_read, 0)
    os.dup2(reply_write, 1)
    os.close(request_read)
    os.close(reply_write)
    calls: list[str] = []

    def give(line: bytes) -> None:
        go_on(f"schedd:{calls[-1]}:acted")
        try:
            replies.write(line)
            replies.flush()
        except BrokenPipeError:
            os._exit(0)  # as the helper itself does: nobody reads the answer

    def take_requests() -> None:
        with os.fdopen(request_write, "wb") as inner:
            for line in requests:
                calls.append(json.loads(line)["call"])
                go_on(f"schedd:{calls[-1]}:sent")
                if calls[-1] == "history" and not has_history:
                    give(refusal(line))
                    continue
                inner.write(line)
                inner.flush()

    def give_replies() -> None:
        with os.fdopen(reply_read, "rb") as inner:
            for line in inner:
                give(line)

    threading.Thread(target=take_requests, daemon=True).start()
    giver = threading.Thread(target=give_replies, daemon=True)
    giver.start()
    try:
        run_program(program)
    finally:
        os.close(1)
        giver.join()


def refusal(request: bytes) -> bytes:
    """What a helper replies when the schedd does not let its history be asked."""
    error = {"kind": "refused", "message": "Remote history has been disabled on this schedd"}
    return json.dumps({"id": json.loads(request)["id"], "error": error}).encode() + b"\n"


def run_program(program: list[str]) -> None:
    """What `python PROGRAM…` would run."""
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    _, _gate, _role, *_rest = sys.argv
    if _role == "tms":
        run_tms(_gate, _rest[0])
    else:
        run_helper(_gate, _rest, has_history=_role == "helper")
