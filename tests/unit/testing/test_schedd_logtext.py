"""Our events are, byte for byte, what HTCondor wrote: each is compared with a captured one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ewms.testing.schedd import logtext
from ewms.testing.schedd.logtext import CLUSTER, Event, Usage
from ewms.tms.condor.base import Value

CAPTURED = Path(__file__).parents[2] / "data/jel"
AP = "<127.0.0.1:9618?addrs=127.0.0.1-9618+[fd00--2]-9618&alias=vm&noUDP&sock=schedd_15213_6e5d>"
EP = AP.replace("schedd_15213", "startd_15213")
BY_X = "x (by user ewms)"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def captured(name: str, number: int, which: int = 0) -> bytes:
    events = (CAPTURED / name).read_bytes().split(b"\n...\n")
    return [event for event in events if event.startswith(b"%03d " % number)][which] + b"\n...\n"


def when(raw: bytes) -> float:
    date = b" ".join(raw.split()[2:4]).decode()
    return time.mktime(time.strptime(date, "%Y-%m-%d %H:%M:%S"))


RM_RUNNING = Usage(0.01, 0, 1, 2, memory_mb=4, disk_kb=10240, memory_request_mb=64)
SLOT: dict[str, Value] = {
    "CondorScratchDir": "/var/lib/condor/execute/dir_57759/scratch",
    "Cpus": 1,
    "Disk": 10240,
    "GPUs": 0,
}


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (captured("rm-running.jel", 0), logtext.submitted(31, 0, AP)),
        (captured("submit-notes.jel", 0), logtext.submitted(10, 0, AP, ["LOGNOTE x", "USERNOTE y"])),
        (captured("factory-complete.jel", 35), logtext.cluster_submitted(36, AP)),
        (captured("factory-complete.jel", 36), logtext.cluster_removed(36, 6, True)),
        (captured("factory-paused-removed.jel", 36), logtext.cluster_removed(44, 4, False, "pause2 (by user ewms)")),
        (captured("factory-paused-removed.jel", 37), logtext.paused(44, "pause (by user ewms)", 1, 1)),
        (captured("factory-paused-removed.jel", 38), logtext.resumed(44, "resume (by user ewms)")),
        (captured("rm-running.jel", 1), logtext.executing(31, 0, EP, "slot1_4@vm", {**SLOT, "Memory": 128})),
        (captured("rm-running.jel", 40, 1), logtext.transferring(31, 0, "Finished transferring input files")),
        (captured("rm-running.jel", 9), logtext.aborted(31, 0, "Python-initiated action (by user ewms)")),
        (captured("submit-notes.jel", 9), logtext.aborted(10, 0, "")),
        (captured("periodic-hold.jel", 12), logtext.held(34, 0, "my reason", 3, 42)),
        (captured("chirp-after-sigterm-rm.jel", 8), logtext.generic(139, 0, "SEQ 0")),
        (captured("chirp-after-sigterm-rm.jel", 33), logtext.attribute_set(139, 0, "EWMSseq", "0", None)),
        (captured("chirp-after-sigterm-rm.jel", 33, 1), logtext.attribute_set(139, 0, "EWMSseq", "1", "0")),
    ],
    ids=lambda value: value[:3].decode() if isinstance(value, bytes) else "",
)
def test_an_event_is_written_as_htcondor_writes_it(raw: bytes, event: Event) -> None:
    assert logtext.render(event, when(raw)) == raw


def without_usage(raw: bytes) -> bytes:
    """Without the numbers of the usage table, which are the machine's."""
    lines = raw.decode().split("\n")
    return "\n".join(line for line in lines if not line.startswith(("\t   Disk", "\t   Cpus"))).encode()


def test_an_eviction_with_its_usage_table() -> None:
    raw = captured("rm-running.jel", 4)
    event = logtext.evicted(31, 0, RM_RUNNING, code=1023, subcode=0, reason="Python-initiated action (by user ewms)")
    assert without_usage(logtext.render(event, when(raw))) == without_usage(raw)


def test_a_termination_with_its_usage_table() -> None:
    raw = captured("factory-complete.jel", 5)
    usage = Usage(0, 0, 1, 2, memory_mb=4, disk_kb=10240, memory_request_mb=64)
    ours = logtext.render(logtext.terminated(36, 0, usage, 0, None), when(raw))
    # HTCondor writes the load 0.00 as 0, and all numbers one place further to the right then.
    assert [line.split() for line in without_usage(ours).split(b"\n")] == [
        line.split() for line in without_usage(raw).split(b"\n")
    ]


def test_a_termination_by_signal() -> None:
    assert captured("killed-by-signal.jel", 5).startswith(
        logtext.render(logtext.terminated(29, 0, Usage(), None, 9), when(captured("killed-by-signal.jel", 5)))[:130]
    )


def test_an_information_event() -> None:
    raw = captured("factory-with-notes.jel", 28, 2)
    about = logtext.information(logtext.aborted(18, 0, ""), when(raw) + 0.6241, {"EWMSTaskforceUUID": '"TF-1"'})
    assert about is not None
    assert logtext.render(about, when(raw)) == raw


def test_no_information_about_a_generic_event() -> None:
    assert logtext.information(logtext.generic(1, 0, "x"), 0, {}) is None


def test_line_breaks_in_a_reason_cannot_break_the_log() -> None:
    raw = logtext.render(logtext.held(1, 0, "a\n...\nb\r", 1, 0), 0)
    assert raw.count(b"\n...\n") == 1
    assert b"\ta|...|b \n" in raw


def test_bytes_that_are_no_text_pass_unchanged() -> None:
    assert b" \xff\n...\n" in logtext.render(logtext.generic(1, CLUSTER, b"\xff".decode("utf-8", "surrogateescape")), 0)


def test_ids_are_as_wide_as_they_must_be() -> None:
    assert logtext.render(logtext.generic(104501503, 12345, "x"), 0).startswith(b"008 (104501503.12345.000) ")
