"""A synthetic job event log of one busy day, deterministic: what the event log benches read, and some tests too.

Every job is a story (submitted, transferred, running, chirping, perhaps evicted and run again, held and released,
failing, terminated) told by a generator of timed events; the log is all stories merged by time, as a schedd and its
shadows would have written them. The texts are HTCondor's own (25.14), byte for byte in form.

    python tests/bench/daylog.py --events 500000 day.tms.jel
"""

import argparse
import heapq
import random
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs

START = 1_795_219_200  # 2026-11-21 00:00:00 UTC
_HOST = "<127.0.0.1:9618?addrs=127.0.0.1-9618+[fd00--2]-9618&alias=ap.example.org&noUDP&sock={}>"
_SCHEDD = _HOST.format("schedd_15213_6e5d")
_USAGE = (
    "\tPartitionable Resources :    Usage  Request Allocated \n"
    "\t   Cpus                 :     0.97        1         1 \n"
    "\t   Disk (KB)            :   126       10240     10240 \n"
    "\t   GPUs                 :                           0 \n"
    "\t   Memory (MB)          :    56         100       128 \n"
    "\t   TimeExecute (s)      :  1804                       \n"
    "\t   TimeSlotBusy (s)     :  1811                       \n"
)
_RUSAGE = "\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  {}\n"
_ERRORS = (
    "task failed (exit code 1): ValueError: bad frame {n} in /data/sim/run{n}/frames.i3.zst",
    "task failed (exit code 137): Killed",
    "task failed: [Timeout-Error] timed out after 3600s",
    "task failed (exit code 2): OSError: [Errno 28] No space left on device: '/scratch/{n}/out.npy'",
)
_HOLDS = (
    ("Error from slot1_{n}@ep{n}: memory usage exceeded request_memory", 34, 0),
    ("Transfer input files failure at access point ap while sending files to execution point ep{n}", 13, 2),
    ("via condor_hold (by user ewms)", 1, 0),
)

Timed = tuple[float, int, int, str]


@attrs.frozen
class Day:
    """How large a day to write; the number of counter updates of each run is what fills it up."""

    taskforces: int = 20
    workers: int = 1000
    updates: int = 2
    seed: int = 1

    @classmethod
    def of(cls, events: int, *, taskforces: int = 20, workers: int = 1000, seed: int = 1) -> "Day":
        """A day of about so many events: fewer updates, and where none are left fewer workers, for a small one."""
        bare, per_update = 21.6, 4.4  # measured means of one job
        per_job = events / (taskforces * workers)
        if per_job < bare:
            return cls(taskforces, max(1, round(events / bare / taskforces)), 0, seed)
        return cls(taskforces, workers, round((per_job - bare) / per_update), seed)


def uuid_of(cluster: int) -> str:
    return f"TF-{cluster:08x}-cfa0c83f"


def lines(day: Day) -> Iterator[bytes]:
    """The day's events, in the order of the log."""
    stories = [
        _story(day, cluster, proc) for cluster in range(101, 101 + day.taskforces) for proc in range(day.workers)
    ]
    stories += [_cluster_story(day, cluster) for cluster in range(101, 101 + day.taskforces)]
    clock: dict[int, bytes] = {}
    for when, cluster, proc, text in heapq.merge(*stories):
        second = int(when)
        if second not in clock:
            clock.clear()
            clock[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%SZ").encode()
        number, _, rest = text.partition(" ")
        yield b"%s (%03d.%03d.000) %s %s...\n" % (number.encode(), cluster, proc, clock[second], rest.encode())


def write(path: Path, day: Day) -> int:
    """Write the day to `path`; the number of its events."""
    n = 0
    with path.open("wb") as file:
        for event in lines(day):
            file.write(event)
            n += 1
    return n


def _submitted(day: Day, cluster: int) -> float:
    return START + (cluster - 101) * 1800.0


def _cluster_story(day: Day, cluster: int) -> Iterator[Timed]:
    at = _submitted(day, cluster)
    yield at, cluster, -1, f"035 Cluster submitted from host: {_SCHEDD}\n    EWMSTaskforceUUID={uuid_of(cluster)}\n"
    if cluster % 5:  # every fifth taskforce still runs at the end of the day
        text = f"036 Cluster removed\n\tMaterialized {day.workers} jobs from 0 items.\tComplete\n"
        yield START + 86_000.0 + cluster, cluster, -1, text


def _story(day: Day, cluster: int, proc: int) -> Iterator[Timed]:
    rng = random.Random(f"{day.seed}/{cluster}/{proc}")
    at = _submitted(day, cluster) + rng.random()
    note = f"    EWMSTaskforceUUID={uuid_of(cluster)}\n"
    yield at, cluster, proc, f"000 Job submitted from host: {_SCHEDD}\n{note}"
    at += rng.uniform(10, 600)
    if rng.random() < 0.03:
        at = yield from _held(rng, at, cluster, proc)
    while rng.random() < 0.08:
        at = yield from _run(day, rng, at, cluster, proc, ending="evicted")
        at += rng.uniform(30, 900)
    if cluster % 5 == 0 and rng.random() < 0.5:
        yield from _run(day, rng, at, cluster, proc, ending="")
        return
    yield from _run(day, rng, at, cluster, proc, ending="removed" if rng.random() < 0.02 else "terminated")


def _held(rng: random.Random, at: float, cluster: int, proc: int) -> Generator[Timed, None, float]:
    reason, code, subcode = rng.choice(_HOLDS)
    reason = reason.format(n=rng.randrange(1, 400))
    yield at, cluster, proc, f"012 Job was held.\n\t{reason}\n\tCode {code} Subcode {subcode}\n"
    at += rng.uniform(60, 600)
    yield at, cluster, proc, "013 Job was released.\n\tThe job attribute PeriodicRelease expression evaluated to TRUE\n"
    return at + rng.uniform(10, 60)


def _run(
    day: Day, rng: random.Random, at: float, cluster: int, proc: int, *, ending: str
) -> Generator[Timed, None, float]:
    place = rng.randrange(1, 400)
    slot = f"slot1_{rng.randrange(1, 64)}@ep{place}.example.org"
    busy = _HOST.format(f"{slot.partition('@')[0]}_15262_35a6_{proc}")

    def say(text: str, after: float = 0.3) -> Timed:
        nonlocal at
        at += after * rng.random()
        return at, cluster, proc, text

    def chirp(name: str, value: str | int) -> Timed:
        shown = f'"{value}"' if isinstance(value, str) else value
        return say(f"008 HTChirpEWMSPilot{name}: {shown}\n", 0.01)

    def status(word: str) -> Iterator[Timed]:
        yield chirp("Status", word)
        yield chirp("LastUpdatedTimestamp", int(at))

    yield say(f"040 Started transferring input files\n\tTransferring to host: {busy}\n")
    yield say("040 Finished transferring input files\n", 2)
    yield say(
        f'001 Job executing on host: {busy}\n\tSlotName: {slot}\n\tCondorScratchDir = "/var/lib/condor/execute/'
        f'dir_{proc}/scratch"\n\tCpus = 1\n\tDisk = 10240\n\tGPUs = 0\n\tMemory = 128\n',
        2,
    )
    yield chirp("StartedTimestamp", int(at))
    yield chirp("Site", f"Site{place % 40}")
    yield chirp("Host", f"ep{place}.example.org")
    yield from status("Started")
    yield from status("AwaitingFirstMessage")
    yield say(
        f"006 Image size of job updated: {rng.randrange(10**6)}\n\t38  -  MemoryUsage of job (MB)\n"
        "\t38732  -  ResidentSetSize of job (KB)\n",
        5,
    )
    yield from status("Tasking")
    done = failed = 0
    for _ in range(day.updates):
        at += 60
        done += rng.randrange(5)
        yield chirp("TasksTotal", done)
        yield chirp("TasksSuccess", done - failed)
        if rng.random() < 0.02:
            failed += 1
            yield chirp("TasksFailed", failed)
            yield chirp("Error", rng.choice(_ERRORS).format(n=rng.randrange(10**5)))
        yield chirp("LastUpdatedTimestamp", int(at))
        yield say(
            f"006 Image size of job updated: {rng.randrange(10**6)}\n\t75  -  MemoryUsage of job (MB)\n"
            "\t76620  -  ResidentSetSize of job (KB)\n"
        )
    at += rng.uniform(5, 900)
    if ending in {"evicted", "removed"}:
        code, why = (1022, "Job vacated by schedd") if ending == "evicted" else (1023, "via condor_rm (by user ewms)")
        yield say(
            f"004 Job was evicted. Code {code} Subcode 0\n\t(0) CPU times\n"
            + _RUSAGE.format("Run Remote Usage")
            + _RUSAGE.format("Run Local Usage")
            + f"\t0  -  Run Bytes Sent By Job\n\t962  -  Run Bytes Received By Job\n\tReason: {why}\n"
            + _USAGE
        )
    if ending == "removed":
        yield say("009 Job was aborted.\n\tvia condor_rm (by user ewms)\n", 0.001)
    if ending == "terminated":
        yield from status("PendingRemainingTasks")
        yield from status("Done")
        yield say("040 Started transferring output files\n")
        yield say("040 Finished transferring output files\n")
        yield say(
            f"005 Job terminated.\n\t(1) Normal termination (return value {min(failed, 1)})\n"
            + "".join(
                _RUSAGE.format(f"{total} {where} Usage") for total in ("Run", "Total") for where in ("Remote", "Local")
            )
            + "".join(
                f"\t{n}  -  {total} Bytes {way} By Job\n"
                for total in ("Run", "Total")
                for n, way in ((44, "Sent"), (51776, "Received"))
            )
            + _USAGE
        )
    return at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--events", type=int, default=500_000)
    options = parser.parse_args()
    print(write(options.path, Day.of(options.events)), "events")


if __name__ == "__main__":
    main()
