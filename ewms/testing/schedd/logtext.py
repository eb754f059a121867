"""Job events → the bytes of HTCondor's classic job event log (pure), in the very form HTCondor 25 writes them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from ewms.tms.condor.base import Value

CLUSTER: Final = -1
"""The proc number of events of a whole cluster."""

_INFORMATION: Final = 28
_GENERIC: Final = 8
_MAX_NOTE_BYTES: Final = 8191

TYPES: Final[Mapping[int, tuple[str, str]]] = {
    0: ("ULOG_SUBMIT", "SubmitEvent"),
    1: ("ULOG_EXECUTE", "ExecuteEvent"),
    4: ("ULOG_JOB_EVICTED", "JobEvictedEvent"),
    5: ("ULOG_JOB_TERMINATED", "JobTerminatedEvent"),
    6: ("ULOG_IMAGE_SIZE", "JobImageSizeEvent"),
    7: ("ULOG_SHADOW_EXCEPTION", "ShadowExceptionEvent"),
    8: ("ULOG_GENERIC", "GenericEvent"),
    9: ("ULOG_JOB_ABORTED", "JobAbortedEvent"),
    12: ("ULOG_JOB_HELD", "JobHeldEvent"),
    13: ("ULOG_JOB_RELEASED", "JobReleaseEvent"),
    21: ("ULOG_REMOTE_ERROR", "RemoteErrorEvent"),
    33: ("ULOG_ATTRIBUTE_UPDATE", "AttributeUpdateEvent"),
    35: ("ULOG_CLUSTER_SUBMIT", "ClusterSubmitEvent"),
    36: ("ULOG_CLUSTER_REMOVE", "ClusterRemoveEvent"),
    37: ("ULOG_FACTORY_PAUSED", "FactoryPausedEvent"),
    38: ("ULOG_FACTORY_RESUMED", "FactoryResumedEvent"),
    40: ("ULOG_FILE_TRANSFER", "FileTransferEvent"),
}


@attrs.frozen
class Event:
    """One event: its number, its job (`proc` is `CLUSTER` for a whole cluster) and its lines."""

    number: int
    cluster: int
    proc: int
    first: str
    """The text after the date on the header line."""
    body: tuple[str, ...] = ()
    """The other lines, with the white space they begin with."""
    facts: Mapping[str, Value] = attrs.field(factory=dict)
    """What an information event (028) about this one repeats of it."""


@attrs.frozen
class Usage:
    """What a run of a worker used, for the usage tables."""

    user_s: float = 0
    system_s: float = 0
    executed_s: int = 0
    busy_s: int = 0
    memory_mb: int = 0
    cpus: int = 1
    disk_kb: int = 0
    memory_request_mb: int = 0
    executed: bool = True


# --- bytes ---


def render(event: Event, when: float) -> bytes:
    """The event as it stands in the log; `when` is in s since the epoch, written in local time."""
    head = f"{event.number:03d} ({event.cluster:03d}.{event.proc:03d}.000) {_date(when)} {event.first}"
    return "\n".join([head, *event.body, "...\n"]).encode("utf-8", "surrogateescape")


def information(event: Event, when: float, attributes: Mapping[str, str]) -> Event | None:
    """The event 028 that follows `event` when the job asked for it; `attributes` are texts of expressions.

    There is none about generic events: HTCondor writes them without the job's ad.
    """
    if event.number == _GENERIC:
        return None
    trigger, my_type = TYPES[event.number]
    moment = f"{_date(when).replace(' ', 'T')}.{int(when % 1 * 1000):03d}"
    texts = {name: literal(value) for name, value in event.facts.items()}
    texts |= {
        "Cluster": str(event.cluster),
        "EventTime": literal(moment),
        "EventTypeNumber": str(_INFORMATION),
        "MyType": literal(my_type),
        "Subproc": "0",
        "TriggerEventTypeName": literal(trigger),
        "TriggerEventTypeNumber": str(event.number),
    }
    if event.proc != CLUSTER:
        texts["Proc"] = str(event.proc)
    texts |= attributes
    lines = tuple(f"{name} = {texts[name]}" for name in sorted(texts))
    return Event(_INFORMATION, event.cluster, event.proc, "Job ad information event triggered.", lines)


def literal(value: Value) -> str:
    """A plain value as ClassAd text."""
    match value:
        case None:
            return "undefined"
        case bool():
            return str(value).lower()
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
    return str(value)


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


# --- the events ---


def submitted(cluster: int, proc: int, host: str, notes: Sequence[str] = ()) -> Event:
    """000."""
    return Event(0, cluster, proc, f"Job submitted from host: {host}", _notes(notes), {"SubmitHost": host})


def cluster_submitted(cluster: int, host: str, notes: Sequence[str] = ()) -> Event:
    """035."""
    return Event(35, cluster, CLUSTER, f"Cluster submitted from host: {host}", _notes(notes), {"SubmitHost": host})


def _notes(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple("    " + note.encode()[:_MAX_NOTE_BYTES].decode(errors="ignore") for note in notes)


def executing(cluster: int, proc: int, host: str, slot: str, properties: Mapping[str, Value]) -> Event:
    """001; `properties` are those of the slot."""
    lines = [f"\tSlotName: {slot}", *(f"\t{name} = {literal(properties[name])}" for name in sorted(properties))]
    facts = {"ExecuteHost": host, "SlotName": slot}
    return Event(1, cluster, proc, f"Job executing on host: {host}", tuple(lines), facts)


def transferring(cluster: int, proc: int, what: str, host: str | None = None) -> Event:
    """040; `what` as in "Started transferring input files"."""
    return Event(40, cluster, proc, what, (f"\tTransferring to host: {host}",) if host else ())


def image_size(cluster: int, proc: int, usage: Usage) -> Event:
    """006."""
    kilobytes = usage.memory_mb * 1024
    lines = (f"\t{usage.memory_mb}  -  MemoryUsage of job (MB)", f"\t{kilobytes}  -  ResidentSetSize of job (KB)")
    return Event(6, cluster, proc, f"Image size of job updated: {kilobytes}", lines, {"Size": kilobytes})


def evicted(cluster: int, proc: int, usage: Usage, *, code: int, subcode: int, reason: str) -> Event:
    """004 of a worker that was stopped."""
    lines = [
        "\t(0) CPU times",
        *_cpu_times(usage, ("Run",)),
        *_bytes(("Run",)),
        f"\tReason: {one_line(reason)}",
        *usage_table(usage),
    ]
    first = f"Job was evicted. Code {code} Subcode {subcode}"
    return Event(4, cluster, proc, first, tuple(lines), {"Reason": reason, "ReasonCode": code})


def requeued(cluster: int, proc: int, usage: Usage, status: str, reason: str) -> Event:
    """004 of a worker that ended by itself and goes back into the queue."""
    lines = [
        "\t(0) Job terminated and was requeued",
        *_cpu_times(usage, ("Run",)),
        *_bytes(("Run",)),
        status,
        f"\t{one_line(reason)}",
    ]
    return Event(4, cluster, proc, "Job was evicted.", tuple(lines), {"TerminatedAndRequeued": True})


def terminated(cluster: int, proc: int, usage: Usage, exit_code: int | None, signal: int | None) -> Event:
    """005."""
    lines = [
        *exit_lines(exit_code, signal),
        *_cpu_times(usage, ("Run", "Total")),
        *_bytes(("Run", "Total")),
        *usage_table(usage),
    ]
    facts = {"ReturnValue": exit_code} if signal is None else {"TerminatedBySignal": signal}
    return Event(5, cluster, proc, "Job terminated.", tuple(lines), facts)


def exit_lines(exit_code: int | None, signal: int | None) -> list[str]:
    """How a worker ended."""
    if signal is None:
        return [f"\t(1) Normal termination (return value {exit_code})"]
    return [f"\t(0) Abnormal termination (signal {signal})", "\t(0) No core file"]


def shadow_exception(cluster: int, proc: int, message: str) -> Event:
    """007."""
    return Event(7, cluster, proc, "Shadow exception!", (f"\t{message}", *_bytes(("Run",))), {"Message": message})


def generic(cluster: int, proc: int, text: str) -> Event:
    """008."""
    return Event(8, cluster, proc, text)


def aborted(cluster: int, proc: int, reason: str) -> Event:
    """009."""
    lines = (f"\t{one_line(reason)}",) if reason else ()
    return Event(9, cluster, proc, "Job was aborted.", lines, {"Reason": reason} if reason else {})


def held(cluster: int, proc: int, reason: str, code: int, subcode: int) -> Event:
    """012."""
    lines = (f"\t{one_line(reason) or 'Reason unspecified'}", f"\tCode {code} Subcode {subcode}")
    facts: dict[str, Value] = {"HoldReason": reason, "HoldReasonCode": code, "HoldReasonSubCode": subcode}
    return Event(12, cluster, proc, "Job was held.", lines, facts)


def released(cluster: int, proc: int, reason: str) -> Event:
    """013."""
    return Event(13, cluster, proc, "Job was released.", (f"\t{one_line(reason)}",), {"Reason": reason})


def starter_error(cluster: int, proc: int, slot: str, message: str, *, code: int, subcode: int) -> Event:
    """021."""
    lines = (f"\t{one_line(message)}", f"\tCode {code} Subcode {subcode}")
    return Event(21, cluster, proc, f"Error from starter on {slot}:", lines, {"ErrorMsg": message})


def attribute_set(cluster: int, proc: int, name: str, value: str, old: str | None) -> Event:
    """033; values are ClassAd texts."""
    first = (
        f"Setting job attribute {name} to {value}"
        if old is None
        else f"Changing job attribute {name} from {old} to {value}"
    )
    return Event(33, cluster, proc, first, (), {"Attribute": name, "Value": value})


def cluster_removed(cluster: int, materialized: int, complete: bool, notes: str = "") -> Event:
    """036."""
    state = "Complete" if complete else "Incomplete"
    lines = [f"\tMaterialized {materialized} jobs from 0 items.\t{state}", *([f"\t{notes}"] if notes else [])]
    facts = {"Completion": int(complete), "NextProcId": materialized, "NextRow": 0}
    return Event(36, cluster, CLUSTER, "Cluster removed", tuple(lines), facts)


def paused(cluster: int, reason: str, pause_code: int, hold_code: int | None) -> Event:
    """037."""
    lines = [f"\t{one_line(reason)}", f"\tPauseCode {pause_code}"]
    lines += [] if hold_code is None else [f"\tHoldCode {hold_code}"]
    return Event(37, cluster, CLUSTER, "Job Materialization Paused", tuple(lines), {"Reason": reason})


def resumed(cluster: int, reason: str) -> Event:
    """038."""
    return Event(38, cluster, CLUSTER, "Job Materialization Resumed", (f"\t{one_line(reason)}",), {"Reason": reason})


def one_line(text: str) -> str:
    """What HTCondor makes of a reason with line breaks."""
    return text.replace("\n", "|").replace("\r", " ")


# --- tables ---


def _cpu_times(usage: Usage, totals: Iterable[str]) -> list[str]:
    remote, local = f"Usr {_span(usage.user_s)}, Sys {_span(usage.system_s)}", f"Usr {_span(0)}, Sys {_span(0)}"
    return [
        f"\t\t{times}  -  {total} {where} Usage"
        for total in totals
        for times, where in ((remote, "Remote"), (local, "Local"))
    ]


def _span(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} {h:02d}:{m:02d}:{s:02d}"


def _bytes(totals: Iterable[str]) -> list[str]:
    return [f"\t0  -  {total} Bytes {way} By Job" for total in totals for way in ("Sent", "Received")]


def usage_table(usage: Usage) -> list[str]:
    """The table of partitionable resources; numbers stand under each other at the decimal point."""
    load = (usage.user_s + usage.system_s) / max(usage.executed_s, 1)
    memory = usage.memory_request_mb
    rows = [
        ("Cpus", f"{load:.2f}" if usage.executed else "", usage.cpus, usage.cpus),
        ("Disk (KB)", "10", usage.disk_kb, usage.disk_kb),
        ("GPUs", "", "", 0),
        ("Memory (MB)", str(usage.memory_mb) if usage.executed else "", memory, -(-memory // 128) * 128),
        *([("TimeExecute (s)", str(usage.executed_s), "", "")] if usage.executed else []),
        ("TimeSlotBusy (s)", str(usage.busy_s), "", ""),
    ]
    fractions = any("." in used for _, used, _, _ in rows)
    lines = ["\tPartitionable Resources :    Usage  Request Allocated "]
    for name, used, request, allocated in rows:
        aligned = used if "." in used or not fractions else f"{used}   "
        lines.append(f"\t   {name:<21}:{aligned:>9}{request:>9}{allocated:>10} ")
    return lines
