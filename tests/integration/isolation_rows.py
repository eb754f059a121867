"""The rows of `docs/isolation.md`: what a task sees with Apptainer and with bubblewrap, compared line by line; pure.

Each row takes what the pilot saw, and what a task saw with each (`isolation_views.py`). It holds when bubblewrap's task
is isolated at least as well, and finds what it needs in the same place.
"""

from collections.abc import Callable
from typing import Any, Final

from isolation_views import HIDDEN, IO, MARKER, SITE, TASK_TOKEN, TASK_VARIABLES, TOKEN

Seen = dict[str, Any]
Row = Callable[[Seen, Seen, Seen], None]
OWN_NAMESPACES: Final = {"user", "pid", "pid_for_children", "ipc", "mnt"}
CAPABILITIES: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def namespaces(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    for seen in (apptainer, bwrap):
        own = {name for name, there in pilot["namespaces"].items() if seen["namespaces"][name] != there}
        assert own == OWN_NAMESPACES


def no_new_privileges(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert apptainer["status"]["NoNewPrivs"] == bwrap["status"]["NoNewPrivs"] == "1"


def capabilities(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    for seen in (apptainer, bwrap):
        assert {name: int(seen["status"][name], 16) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0)
        assert not seen["may_mount"]


def seccomp(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert int(bwrap["status"]["Seccomp"]) >= int(apptainer["status"]["Seccomp"])
    assert bwrap["may_unshare"] <= apptainer["may_unshare"]


def keyrings(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    shares = [seen["session_keyring"] == pilot["session_keyring"] for seen in (apptainer, bwrap)]
    assert shares[1] <= shares[0]


def user_and_groups(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["ids"] == apptainer["ids"]
    assert bwrap["ids"][0][0] != 0
    assert bwrap["mapped"] == apptainer["mapped"]
    assert bwrap["setgroups"] == apptainer["setgroups"] == "deny\n"


def user_name(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["user"] == apptainer["user"]


def processes(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["processes"] <= apptainer["processes"]
    assert bwrap["may_trace_1"] <= apptainer["may_trace_1"]
    assert bwrap["places_of_1"] == apptainer["places_of_1"] == [apptainer["root"], []]
    for seen in (apptainer, bwrap):
        # The first process belongs to the runtime; it holds nothing open that leads out.
        assert {fd for fd, name in seen["files_of_1"].items() if name.startswith("/")} <= {"0", "1", "2"}
        assert not [line for line in seen["command_lines"] if line.startswith("sh\0-c\0sleep")]


def no_secret_is_seen(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert [line for line in pilot["command_lines"] if MARKER in line]
    for seen in (apptainer, bwrap):
        assert not [line for line in seen["command_lines_outside"] if TOKEN in line or TASK_TOKEN in line]
        assert [line for line in seen["command_lines_outside"] if "isolation_look.py" in line]
        assert not [
            text for text in seen["environments"] if TOKEN in text or "EWMS_PILOT_" in text or "_CONDOR" in text
        ]


def devices(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert apptainer["devices"].items() <= bwrap["devices"].items()
    more = bwrap["devices"].keys() - apptainer["devices"].keys()
    # /dev/core leads to what nobody may read, and /dev/full holds nothing.
    assert more <= {"/dev/core", "/dev/full"}
    assert bwrap["devices"].get("/dev/core") in (None, "link to /proc/kcore")
    assert bwrap["devices"].get("/dev/full") in (None, "character device 1:7", "character device 1:5")
    assert apptainer["devices_work"]
    assert bwrap["devices_work"]


def shared_memory(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert f"/dev/shm/{MARKER}" in pilot["marked"]
    assert apptainer["shm"] == bwrap["shm"] == []


def message_queues(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert apptainer["mqueue"] == bwrap["mqueue"] == []
    assert apptainer["sysvipc"] == bwrap["sysvipc"]


def proc(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    (options,) = [options for place, options, kind, *_ in bwrap["mounts"] if (place, kind) == ("/proc", "proc")]
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert set(bwrap["kernel_files"]) <= set(apptainer["kernel_files"])
    assert bwrap["kernel_core"].startswith("error")


def sys(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["sys"] == apptainer["sys"]
    (options,) = [options for place, options, *_ in bwrap["mounts"] if place == "/sys"]
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))


def etc(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["etc"] == apptainer["etc"]
    assert bwrap["etc_files"] == apptainer["etc_files"]
    assert bwrap["etc_files"]["hosts"] == pilot["hosts"]
    assert bwrap["etc_files"]["resolv.conf"] == pilot["resolv.conf"]
    assert bwrap["hour"] == apptainer["hour"]


def home_and_working_directory(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["home"] == bwrap["cwd"] == apptainer["home"] == apptainer["cwd"]


def private_places(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    home = apptainer["home"]
    expected = {"/tmp": ["41777"], "/var/tmp": ["41777"], "/dev/shm": ["41777"], home: ["40700"]}
    assert bwrap["private"] == apptainer["private"] == expected


def environment(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["environment"] == apptainer["environment"]
    assert TASK_VARIABLES.items() <= bwrap["environment"].items()


def read_only_root(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["may_write"] == apptainer["may_write"] == ["/dev", "/dev/shm", "/tmp", "/var/tmp", bwrap["home"], IO]
    assert bwrap["root"] == apptainer["root"]


def mounts(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    places = [{place for place, *_ in seen["mounts"]} for seen in (apptainer, bwrap)]
    # What a file in the layer is enough for is no mount.
    in_etc = {place for place in places[0] if place.startswith("/etc/")}
    assert places[1] - {"/dev/full"} == places[0] - in_etc


def site_mounts(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert bwrap["site"] == apptainer["site"] == ["isolation_look.py"]
    for seen in (apptainer, bwrap):
        (options,) = [options for place, options, *_ in seen["mounts"] if place == SITE]
        assert {"ro", "nosuid", "nodev"} <= set(options.split(","))


def nothing_of_the_workers_directory(pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    assert f"{pilot['directory']}/{HIDDEN[0]}" in pilot["marked"]
    for seen in (apptainer, bwrap):
        assert seen["hidden_files"] == []


def streams_and_files(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    for seen in (apptainer, bwrap):
        assert seen["files"]["0"] == "/dev/null"
        assert seen["stdin"] == ""
        assert seen["more_files"] == []
        assert seen["stderr"] == ""


def circumstances(_pilot: Seen, apptainer: Seen, bwrap: Seen) -> None:
    for name in ("limits", "circumstances", "cgroup", "interfaces"):
        assert bwrap[name] == apptainer[name]


ROWS: Final[tuple[Row, ...]] = (
    namespaces,
    no_new_privileges,
    capabilities,
    seccomp,
    keyrings,
    user_and_groups,
    user_name,
    processes,
    no_secret_is_seen,
    devices,
    shared_memory,
    message_queues,
    proc,
    sys,
    etc,
    home_and_working_directory,
    private_places,
    environment,
    read_only_root,
    mounts,
    site_mounts,
    nothing_of_the_workers_directory,
    streams_and_files,
    circumstances,
)
