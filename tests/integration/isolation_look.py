"""What a task sees of its container, as a program: it runs in the container and prints JSON.

    python3 isolation_look.py IO_DIRECTORY NAME…

NAMEs are files that must not be found. It says `ready` in the directory, and waits for `go`.
"""

# What the kernel says of a place counts here, not the parts of a path.
# ruff: noqa: PTH108, PTH109, PTH110, PTH115, PTH116, PTH118, PTH119, PTH120, PTH123, PTH207, PTH208

import ctypes
import glob
import grp
import json
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterable

PLACES = (
    "/", "/.singularity.d", "/dev", "/dev/shm", "/etc", "/ewms-pilot-data", "/home", "/mnt", "/opt", "/proc",
    "/proc/sys/kernel", "/run", "/site/data", "/srv", "/sys", "/sys/kernel", "/tmp", "/usr", "/usr/bin", "/var",
    "/var/tmp",
)  # fmt: skip
KERNEL_FILES = ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/proc/1/oom_score_adj")
ETC_FILES = ("passwd", "group", "hosts", "resolv.conf", "localtime")


def read(path: str, size: int = -1) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(size).decode("latin-1")
    except OSError as error:
        return f"error: {error.strerror}"


def names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return [f"error: {error.strerror}"]


def links(directory: str) -> dict[str, str]:
    found = {}
    for name in names(directory):
        try:
            found[name] = os.readlink(f"{directory}/{name}")
        except OSError as error:
            found[name] = f"error: {error.strerror}"
    return found


def may_write(path: str) -> bool:
    name = os.path.join(path, "attempt")
    try:
        with open(name, "w"):
            pass
        os.unlink(name)
    except OSError:
        return False
    return True


def devices() -> dict[str, str]:
    return {path: kind(path) for path in below("/dev")}


def kind(path: str) -> str:
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"link to {os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))}"
    if stat.S_ISCHR(found.st_mode):
        return f"character device {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    return f"mode {found.st_mode:o}"


def below(*roots: str) -> Iterable[str]:
    return (os.path.join(at, name) for root in roots for at, _, files in os.walk(root) for name in files)


def devices_work() -> bool:
    for fd in os.openpty():
        os.close(fd)
    with open("/dev/null", "w") as null:
        null.write("x")
    return read("/dev/zero", 2) == "\0\0" and len(read("/dev/urandom", 2)) == 2


def session_keyring() -> int:
    """Its serial number: who has the same one shares it."""
    (keyctl,) = (number for machine, number in (("x86_64", 250), ("aarch64", 219)) if machine == os.uname().machine)
    found: int = ctypes.CDLL(None).syscall(keyctl, 0, -3, 0)
    return found


def mounts() -> list[list[str]]:
    """Mount point, options, type and options of the file system."""
    lines = (line.split() for line in read("/proc/self/mountinfo").splitlines())
    return [[line[4], line[5], *line[line.index("-") + 1 :: 2]] for line in lines]


def of_processes(what: str) -> list[str]:
    return [read(f"/proc/{pid}/{what}") for pid in os.listdir("/proc") if pid.isdigit()]


def succeeds(*argv: str) -> bool:
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def main(io: str, *hidden: str) -> None:
    open(f"{io}/ready", "w").close()
    while not os.path.exists(f"{io}/go"):
        time.sleep(0.01)
    home = os.environ["HOME"]
    roots = [f"/{name}" for name in os.listdir("/") if name not in ("proc", "sys")]
    seen = {
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "status": dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line),
        "may_mount": succeeds("mount", "-t", "tmpfs", "tmpfs", "/tmp"),
        "may_unshare": succeeds("unshare", "--user", "true"),
        "may_trace_1": os.access("/proc/1/mem", os.R_OK),
        "session_keyring": session_keyring(),
        "processes": len(of_processes("stat")),
        "environments": of_processes("environ"),
        "command_lines": of_processes("cmdline"),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "mapped": [read(f"/proc/self/{name}").split()[::2] for name in ("uid_map", "gid_map")],
        "setgroups": read("/proc/self/setgroups"),
        "user": [*pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid()).gr_name],
        "devices": devices(),
        "devices_work": devices_work(),
        "shm": names("/dev/shm"),
        "mqueue": names("/dev/mqueue"),
        "sysvipc": [read(path) for path in sorted(glob.glob("/proc/sysvipc/*"))],
        "kernel_files": [path for path in KERNEL_FILES if os.access(path, os.W_OK)],
        "kernel_core": read("/proc/kcore", 4),
        "sys": [names("/sys"), names("/sys/fs/cgroup")],
        "etc": names("/etc"),
        "etc_files": {name: read(f"/etc/{name}") for name in ETC_FILES},
        "hour": [time.tzname, time.localtime(0).tm_hour],
        "root": names("/"),
        "home": home,
        "cwd": os.getcwd(),
        "private": {
            path: [f"{os.stat(path).st_mode:o}", *names(path)] for path in ("/tmp", "/var/tmp", "/dev/shm", home)
        },
        "environment": dict(os.environ),
        "may_write": [path for path in (*PLACES, home, io) if may_write(path)],
        "mounts": mounts(),
        "site": names("/site/data"),
        "hidden_files": [path for path in below(*roots) if os.path.basename(path) in hidden],
        "files": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in "012"},
        "files_of_1": links("/proc/1/fd"),
        "places_of_1": [names("/proc/1/root"), names("/proc/1/cwd")],
        "more_files": [fd for fd in range(3, 256) if os.path.lexists(f"/proc/self/fd/{fd}")],
        "stdin": sys.stdin.read(),
        "limits": read("/proc/self/limits"),
        "circumstances": [os.uname().nodename, os.nice(0), f"{os.umask(0):o}", read("/proc/self/oom_score_adj")],
        "cgroup": read("/proc/self/cgroup"),
        "interfaces": read("/proc/net/dev").count(":"),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
