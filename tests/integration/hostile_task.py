"""A task that tries to get at what is not its own, as a program: it prints as JSON what it got, by kind.

    python3 hostile_task.py OUTFILE DATA_HUB TASKS

It waits until so many of its kind have begun. Each has left a mark in its own places: one that another finds, or a
sign of a pilot's secrets in a file, an environment or the memory of a process, has been reached and must not be.
"""

# What the kernel lets through counts here, not the parts of a path.
# ruff: noqa: PTH108, PTH110, PTH116, PTH118, PTH119, PTH120, PTH123
# ruff: noqa: PTH208

import ctypes
import json
import os
import re
import secrets
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

SIGN = ("EWMS_PILOT_QUEUE_INCOMING" + "_AUTH_TOKEN").encode()
MARK = "mark-of" + "-a-task-"
SECRET_FILES = ("ewms_htcondor_envfile.sh", ".chirp.config", ".job.ad", ".machine.ad", "stdoutfile", "stderrfile")
SKIPPED = ("/proc", "/sys", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/dev")
PATIENCE_S = 30.0
NEW_USER, NEW_MOUNTS, NEW_PIDS = 0x10000000, 0x00020000, 0x20000000
ATTACH, DETACH_NOW = 16, 2
LIBC = ctypes.CDLL(None, use_errno=True)
MINE = MARK + secrets.token_hex(8)

Got = dict[str, list[str]]


def content(path: str, size: int = 1 << 20) -> bytes:
    try:
        if path.startswith("/proc/") or stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                return file.read(size)
    except OSError:
        pass
    return b""


def tells(data: bytes) -> list[str]:
    """The signs in it that are not our own."""
    marks = {found.decode() for found in re.findall(MARK.encode() + rb"[0-9a-f]{16}", data)} - {MINE}
    return sorted(marks) + ["secret"] * (SIGN in data)


def pids() -> list[int]:
    """The others in sight; each attempt is made by a child of this program."""
    ours = (os.getpid(), os.getppid())
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in ours]


def files() -> Iterator[str]:
    for root, directories, names in os.walk("/"):
        directories[:] = [name for name in directories if os.path.join(root, name) not in SKIPPED]
        yield from (os.path.join(root, name) for name in names)


# --- the attempts: each returns what it got ---


def read_files() -> list[str]:
    found = []
    for path in files():
        if os.path.basename(path) in SECRET_FILES:
            found.append(path)
        found += [f"{path}: {each}" for each in tells(content(path))]
    return found


def read_environments() -> list[str]:
    return [f"{pid}: {each}" for pid in pids() for each in tells(content(f"/proc/{pid}/environ"))]


def read_memories() -> list[str]:
    found = []
    for pid in pids():
        for line in content(f"/proc/{pid}/maps").decode("latin-1").splitlines():
            span, permissions = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if "r" not in permissions or end - begin > 1 << 26:
                continue
            try:
                with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                    memory.seek(begin)
                    found += [f"{pid}: {each}" for each in tells(memory.read(end - begin))]
            except (OSError, ValueError, OverflowError):
                break
    return found


def through_other_roots() -> list[str]:
    """Other processes' roots and directories, when they lead out of the container."""
    own, found = os.stat("/"), []
    for pid in pids():
        for name in ("root", "cwd"):
            place = f"/proc/{pid}/{name}"
            try:
                there = os.stat(place)
                if name == "root" and (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
                    found.append(place)
                found += [f"{place}/{each}" for each in os.listdir(place) if each in SECRET_FILES]
            except OSError:
                continue
    return found


def trace() -> list[str]:
    """Attach to processes that are not in sight, by their numbers."""
    # A stopped thread of the runtime's own would only stop this task.
    seen = {
        int(number) for name in os.listdir("/proc") if name.isdigit() for number in os.listdir(f"/proc/{name}/task")
    }
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return [str(pid) for pid in range(1, 3000) if pid not in seen and LIBC.ptrace(ATTACH, pid, None, None) == 0]


def signal_others() -> list[str]:
    """Whom a signal reaches who is not of this task's own line; none is sent."""
    ours = {int(number) for pid in _line() for number in os.listdir(f"/proc/{pid}/task")}
    return [str(pid) for pid in sorted({*range(1, 3000), *pids()} - ours) if _may_signal(pid)]


def _line() -> Iterator[int]:
    """This process, its parent, …, up to the container's first."""
    pid = os.getpid()
    while pid:
        yield pid
        pid = int(content(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def write_elsewhere() -> list[str]:
    """Directories that a file could be made in."""
    found = []
    for root, directories, _ in os.walk("/"):
        directories[:] = [name for name in directories if os.path.join(root, name) not in ("/proc", "/sys", "/usr")]
        name = os.path.join(root, MINE)
        try:
            open(name, "x").close()
            os.unlink(name)
            found.append(root)
        except OSError:
            continue
    return found


def write_to_the_kernel() -> list[str]:
    names = (
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/dev/mem",
        "/dev/kmsg",
    )
    found = [name for name in names if os.path.exists(name) and os.access(name, os.W_OK)]
    try:
        os.mknod("/tmp/node", stat.S_IFBLK | 0o600, os.makedev(8, 0))
        found.append("a device node")
    except OSError:
        pass
    return found


def under_the_mounts() -> list[str]:
    """With namespaces of its own, in which it is root: what lies below what was mounted."""
    uid, gid = os.getuid(), os.getgid()
    if LIBC.unshare(NEW_USER | NEW_MOUNTS | NEW_PIDS) != 0:
        return []
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    places = [line.split()[4] for line in content("/proc/self/mountinfo").decode("latin-1").splitlines()]
    uncovered = [place for place in reversed(places) if LIBC.umount2(place.encode(), DETACH_NOW) == 0]
    return [f"uncovered {place}" for place in uncovered] + read_files() + through_other_roots()


def _in_a_child(work: Callable[[], list[str]]) -> list[str]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said, deadline = b"", time.monotonic() + PATIENCE_S
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            break
        said += part
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(reading)
    try:
        return list(json.loads(said))
    except ValueError:
        return ["no answer"]


def command_the_starter() -> list[str]:
    """What listens on this machine's loopback and obeys a stranger who speaks chirp; all are asked at once."""
    with ThreadPoolExecutor(50) as pool:
        return [said for said in pool.map(_command, _listening()) if said]


def _listening() -> list[int]:
    lines = [line.split() for line in content("/proc/net/tcp").decode().splitlines()[1:]]
    places = [words[1].split(":") for words in lines if words[3] == "0A"]
    return [int(port, 16) for address, port in places if address in ("0100007F", "00000000")]


def _command(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as stream:
            stream.settimeout(2)
            stream.sendall(b"ulog reached\n")
            answer = stream.recv(100)
    except OSError:
        return ""
    return f"port {port} said {answer!r}" if answer.strip().isdigit() else ""


ATTEMPTS: tuple[Callable[[], list[str]], ...] = (
    read_files,
    read_environments,
    read_memories,
    through_other_roots,
    trace,
    signal_others,
    write_elsewhere,
    write_to_the_kernel,
    under_the_mounts,
    command_the_starter,
)


def main(outfile: str, hub: str, tasks: str) -> None:
    for place in ("/tmp", "/var/tmp", os.environ["HOME"], os.path.dirname(outfile)):
        with open(os.path.join(place, "own"), "w") as file:
            file.write(MINE)
    open(os.path.join(hub, "begun-" + secrets.token_hex(4)), "w").close()
    while sum(name.startswith("begun-") for name in os.listdir(hub)) < int(tasks):
        time.sleep(0.05)
    got: Got = {attempt.__name__: _in_a_child(attempt) for attempt in ATTEMPTS}
    got["home"] = [os.environ["HOME"]]
    os.unlink(os.path.join(os.path.dirname(outfile), "own"))
    with open(outfile, "w") as file:
        json.dump(got, file)
    open(os.path.join(hub, "ended-" + secrets.token_hex(4)), "w").close()
    while sum(name.startswith("ended-") for name in os.listdir(hub)) < int(tasks):
        time.sleep(0.05)  # the other one's marks are there until it has looked


if __name__ == "__main__":
    main(*sys.argv[1:])
