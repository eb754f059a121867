"""What one of each costs: the only place of the figures that `scale.py` counts with, each with where it comes from.

`computed` ones follow from our code or from the generator of day logs, and `tests/unit/test_bench_scale.py` computes
them again. `counted` ones were counted by hand, from what the contract or a service's design says; no test holds them.
`measured` ones were measured on the machine of docs/performance.md, by the row or program that is named. `assumed` ones
are nobody's measurement: whoever plans puts in his own.
"""

from collections.abc import Mapping
from typing import Final, Literal

import attrs

Origin = Literal["computed", "counted", "measured", "assumed"]


@attrs.frozen
class Cost:
    """One figure."""

    value: float
    unit: str
    what: str
    origin: Origin
    source: str


_GENERATOR: Final = "`daylog.py`, which writes HTCondor's own texts"
_ROUNDS: Final = "[the TMS's rounds](performance.md)"
_NOT_YET: Final = "nobody has measured it here yet"
_SERVER: Final = "a server of 2026 that is not large"

COSTS: Final[Mapping[str, Cost]] = {
    # --- the job event log ---
    "life_bytes": Cost(3024, "bytes", "life of a worker, in the log, without updates", "computed", _GENERATOR),
    "life_lines": Cost(20.5, "log events", "…", "computed", _GENERATOR),
    "update_bytes": Cost(248, "bytes", "update of a pilot's counters, in the log", "computed", _GENERATOR),
    "update_lines": Cost(3.07, "log events", "…", "computed", _GENERATOR),
    "size_bytes": Cost(
        148, "bytes", "image size, in the log (HTCondor's own, every 5 minutes)", "computed", _GENERATOR
    ),
    "packed": Cost(0.066, "bytes", "byte of a day log that was archived", "computed", f"{_GENERATOR}, and gzip"),
    # --- the TMS ---
    "read_cpu": Cost(
        1.7e-6,
        "s of processor",
        "log event, read and counted",
        "measured",
        "[its row](performance.md), with failures by site",
    ),
    "job_memory": Cost(34, "bytes", "worker in a TMS's memory", "measured", "[its row](performance.md)"),
    "tms_memory": Cost(38e6, "bytes", "TMS with nothing to do, without its helpers", "measured", "`measure_costs.py`"),
    # --- the WMS ---
    "start_calls": Cost(4, "requests", "start of a taskforce", "counted", _ROUNDS),
    "stop_calls": Cost(3, "requests", "stop of a taskforce, or its end", "counted", _ROUNDS),
    "batch": Cost(500, "taskforces", "batch of statuses has at most", "computed", "`ewms.tms.report`"),
    "entry_bytes": Cost(245, "bytes", "taskforce in a batch of statuses", "computed", "`ewms.tms.report`"),
    # --- the broker: RabbitMQ, quorum queues ---
    "connections": Cost(2, "connections", "pilot, whose two queues have a token each", "counted", "its contract"),
    "connection_memory": Cost(100e3, "bytes", "connection with a consumer, in the broker", "assumed", _NOT_YET),
    "event_messages": Cost(
        8, "messages", "event: publish, confirm, delivery, ack, in and out", "counted", "its contract"
    ),
    "event_broker_cpu": Cost(1e-3, "s of processor", "event, in a broker of one node", "assumed", _NOT_YET),
    # --- HTCondor ---
    "shadow_memory": Cost(1.5e6, "bytes", "running worker, in its shadow's own memory", "assumed", _NOT_YET),
    "shadow_cpu": Cost(0.1, "s of processor", "run of a worker, of its shadow", "assumed", _NOT_YET),
    "schedd_cpu": Cost(0.02, "s of processor", "run of a worker, of the schedd", "assumed", _NOT_YET),
}
"""“One … costs”."""

LIMITS: Final[Mapping[str, Cost]] = {
    "memory of an access point": Cost(128e9, "bytes", "", "assumed", _SERVER),
    "processors for shadows": Cost(16, "cores", "", "assumed", _SERVER),
    "processor of a schedd": Cost(1, "cores", "", "counted", "it is one process, and one thread of it decides"),
    "disk of an access point": Cost(1e12, "bytes", "", "assumed", _SERVER),
    "processor of a TMS": Cost(1, "cores", "", "counted", "it is one process"),
    "memory of a TMS": Cost(4e9, "bytes", "", "assumed", "what its neighbours leave"),
    "requests to the WMS": Cost(50, "requests/s", "", "assumed", "a small web service with a database"),
    "connections of a broker node": Cost(65_536, "connections", "", "assumed", "file descriptors, as often set"),
    "memory of a broker node": Cost(64e9, "bytes", "", "assumed", _SERVER),
    "new connections of a broker node": Cost(
        1_000, "connections/s", "", "assumed", "tokens are checked with an issuer"
    ),
    "processors of a broker node": Cost(16, "cores", "", "assumed", _SERVER),
    "messages of a queue": Cost(20_000, "messages/s", "", "assumed", "a quorum queue's leader is one process"),
}
"""What one of them can bear."""
