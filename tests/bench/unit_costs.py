"""What one of each costs: the only place of the figures that `scale.py` counts with, each with where it comes from.

`computed` ones follow from our code or from the generator of day logs, and `tests/unit/test_bench_scale.py` computes
them again. `counted` ones were counted by hand, from what the contract or a service's design says; no test holds them.
`measured` ones were measured on the machine of docs/performance.md, by the row or program that is named; medians.
`assumed` ones are nobody's measurement: whoever plans puts in his own.
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
_ORDERS: Final = "a TMS and the WMS stand-in"
_BROKER: Final = "`measure_costs.py`: 1,000 connections of 500 pilots, no TLS"
_POOL: Final = "`measure_costs.py`"
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
    "start_calls": Cost(3, "requests", "start of a taskforce, beside the polls", "computed", _ORDERS),
    "stop_calls": Cost(4, "requests", "stop of a taskforce and its end, beside the polls", "computed", _ORDERS),
    "batch": Cost(500, "taskforces", "batch of statuses has at most", "computed", "`ewms.tms.report`"),
    "entry_bytes": Cost(245, "bytes", "taskforce in a batch of statuses", "computed", "`ewms.tms.report`"),
    # --- the broker: RabbitMQ, quorum queues ---
    "connections": Cost(
        2, "connections", "pilot, whose two queues have a token each", "computed", "`ewms.pilot.service`"
    ),
    "connection_memory": Cost(98e3, "bytes", "connection of a pilot, in the broker", "measured", _BROKER),
    "event_messages": Cost(
        8, "messages", "event: publish, confirm, delivery, ack, in and out", "counted", "AMQP 0-9-1"
    ),
    "event_broker_cpu": Cost(2e-3, "s of processor", "event, in a broker of one node", "measured", _BROKER),
    # --- HTCondor ---
    "shadow_memory": Cost(
        1.75e6, "bytes", "running worker, in its shadow's own memory", "measured", f"{_POOL}: 30 shadows"
    ),
    "shadow_cpu": Cost(
        0.0263, "s of processor", "run of a worker, of its shadow", "measured", f"{_POOL}: 240 short runs"
    ),
    "chirp_shadow_cpu": Cost(
        0.00015, "s of processor", "log event of a pilot, of its shadow", "measured", f"{_POOL}: 2,000 of them"
    ),
    "schedd_cpu": Cost(
        0.0102, "s of processor", "run of a worker, of the schedd", "measured", f"{_POOL}: 240 short runs"
    ),
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
