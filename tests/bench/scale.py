"""A day of many workers, counted: what each part of the system has to carry, and which one breaks first.

    python tests/bench/scale.py                             the tables, for 100,000 workers and 10^9 events
    python tests/bench/scale.py --workers 20000 --events 2e8 --access-points 2
    python tests/bench/scale.py --docs docs/scale.md        puts the tables into the page

Minute by minute, workers come and go (with a fixed seed, so that it is the same day each time): they join in the
morning, one in so many ends and is replaced, a site drops out at noon and comes back, the broker is restarted in the
evening. What they do is counted with the costs of `unit_costs.py`, nothing else is measured here.
"""

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from results import number, put
from unit_costs import COSTS, LIMITS, Cost

MINUTES = 1440
RAMP = 120
"""Minutes in which the pool fills up in the morning."""
SITE_SHARE = 0.2
"""Of all workers are at the largest site."""
SITE_LOST, SITE_BACK, SITE_WHOLE = 720, 780, 810
"""The minutes in which it drops out, comes back, and has all its machines again."""
RECONNECTING = 60.0
"""Within so many s all pilots are back after a restart of the broker: the longest pause of their backoff."""
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)


@attrs.frozen(kw_only=True)
class Plan:
    """A system, and what it has to do."""

    workers: int = 100_000
    events: float = 1e9
    """A day's."""
    worker_hours: float = 8.0
    """How long a worker's machine lets it run, on average."""
    workers_per_taskforce: int = 500
    taskforce_hours: float = 24.0
    queues: int = 1
    """Incoming queues that the events are spread over: one for each workflow that runs."""
    chirp_interval: float = 60.0
    """`EWMS_PILOT_HTCHIRP_RATELIMIT_INTERVAL`, s."""
    report_interval: float = 180.0
    """`TMS_WATCHER_INTERVAL`, s."""
    poll_interval: float = 60.0
    """`TMS_OUTER_LOOP_WAIT`, s."""
    access_points: int = 1
    broker_nodes: int = 1
    log_days: float = 7.0
    """Days that a log stays as it is, and then as an archive (`JOB_EVENT_LOG_…` settings)."""

    @property
    def taskforces(self) -> int:
        """That run at a time."""
        return math.ceil(self.workers / self.workers_per_taskforce)

    def of_size(self, workers: int) -> "Plan":
        """The same with another number of workers, each with as much to do."""
        return attrs.evolve(self, workers=workers, events=self.events * workers / self.workers)


def cost(name: str) -> float:
    """One figure of `unit_costs.py`."""
    return COSTS[name].value


# --- the day ---


@attrs.frozen
class Minute:
    """What happens in one minute, in the whole system."""

    running: int
    started: int


def day(plan: Plan, seed: int = 1) -> Iterator[Minute]:
    """Minute by minute."""
    rng = random.Random(seed)
    p_end = 60 / (plan.worker_hours * 3600)
    running = 0
    for minute in range(MINUTES):
        wanted = plan.workers * min(1.0, (minute + 1) / RAMP) * (1 - SITE_SHARE * _lost(minute))
        if minute == SITE_LOST:
            running -= round(running * SITE_SHARE)
        staying = running - min(running, _some(rng, running, p_end))
        started = max(0, round(wanted) - staying)
        running = staying + started
        yield Minute(running, started)


def _lost(minute: int) -> float:
    """How much of the largest site is not there."""
    if not SITE_LOST <= minute < SITE_WHOLE:
        return 0.0
    return min(1.0, (SITE_WHOLE - minute) / (SITE_WHOLE - SITE_BACK))


def _some(rng: random.Random, n: int, p: float) -> int:
    """How many of `n` it happens to, each with probability `p`."""
    return max(0, round(rng.gauss(n * p, math.sqrt(n * p * (1 - p)))))


@attrs.frozen(kw_only=True)
class Totals:
    """A day of the whole system; peaks are of one minute."""

    lives: int
    """Runs of workers."""
    peak_running: int
    peak_starts: int
    log_bytes: float
    log_lines: float
    peak_log_lines: float
    peak_shadow_s: float
    """Seconds of processor that shadows need."""
    wms_requests: float
    peak_wms_requests: float
    status_bytes: float
    """Bodies of the batches to the WMS."""
    messages: float
    peak_events: float
    connections: int
    """At the peak."""


def count(plan: Plan) -> Totals:
    """What comes together."""
    minutes = list(day(plan))
    updates, sizes = 60 / plan.chirp_interval, 60 / 300
    bytes_a_minute = updates * cost("update_bytes") + sizes * cost("size_bytes")
    chirps_a_minute = updates * cost("update_lines")
    lines_a_minute = chirps_a_minute + sizes
    shadow_s_a_minute = chirps_a_minute * cost("chirp_shadow_cpu")
    lines = [each.started * cost("life_lines") + each.running * lines_a_minute for each in minutes]
    lives, worker_minutes = sum(each.started for each in minutes), sum(each.running for each in minutes)
    peak_running, peak_starts = max(each.running for each in minutes), max(each.started for each in minutes)
    reports = 86400 / plan.report_interval
    even = 2 * plan.access_points * 86400 / plan.poll_interval + reports * plan.access_points * math.ceil(
        plan.taskforces / plan.access_points / cost("batch")
    )
    orders = plan.taskforces * 24 / plan.taskforce_hours * (cost("start_calls") + cost("stop_calls"))
    return Totals(
        lives=lives,
        peak_running=peak_running,
        peak_starts=peak_starts,
        log_bytes=lives * cost("life_bytes") + worker_minutes * bytes_a_minute,
        log_lines=sum(lines),
        peak_log_lines=max(lines),
        peak_shadow_s=max(each.started * cost("shadow_cpu") + each.running * shadow_s_a_minute for each in minutes),
        wms_requests=even + orders,
        # Taskforces begin and end as their workers do, events come as fast as workers take them.
        peak_wms_requests=even / MINUTES + orders * peak_starts / lives,
        status_bytes=reports * plan.taskforces * cost("entry_bytes"),
        messages=plan.events * cost("event_messages"),
        peak_events=plan.events * peak_running / worker_minutes,
        connections=round(peak_running * cost("connections")),
    )


# --- who has to carry it ---


@attrs.frozen
class Load:
    """What one carrier (an access point, the WMS, a broker node, a queue) has to bear at the worst time of the day."""

    name: str
    """Of its limit in `unit_costs.py`."""
    value: float

    @property
    def limit(self) -> Cost:
        """What it can bear."""
        return LIMITS[self.name]

    @property
    def share(self) -> float:
        """Of what it can bear."""
        return self.value / self.limit.value


def loads(plan: Plan) -> list[Load]:
    """Of each carrier."""
    totals = count(plan)
    running = totals.peak_running / plan.access_points
    starts = totals.peak_starts / 60 / plan.access_points
    events = totals.peak_events / 60
    log_bytes = totals.log_bytes / plan.access_points
    connections = totals.connections / plan.broker_nodes
    return [
        Load("memory of an access point", running * cost("shadow_memory")),
        Load("processors for shadows", totals.peak_shadow_s / 60 / plan.access_points),
        Load("processor of a schedd", starts * cost("schedd_cpu")),
        Load("disk of an access point", log_bytes * plan.log_days * (1 + cost("packed"))),
        Load("processor of a TMS", totals.peak_log_lines / 60 / plan.access_points * cost("read_cpu")),
        Load("memory of a TMS", cost("tms_memory") + totals.lives / plan.access_points * cost("job_memory")),
        Load("requests to the WMS", totals.peak_wms_requests / 60),
        Load("connections of a broker node", connections),
        Load("memory of a broker node", connections * cost("connection_memory")),
        Load("new connections of a broker node", connections / RECONNECTING),
        Load("processors of a broker node", events * cost("event_broker_cpu") / plan.broker_nodes),
        Load("messages of a queue", events * cost("event_messages") / 2 / plan.queues),
    ]


def worst(plan: Plan) -> Load:
    """What breaks first."""
    return max(loads(plan), key=lambda load: load.share)


def catching_up(plan: Plan) -> float:
    """The s of processor that a TMS needs after a start at the day's end, without any checkpoint."""
    return count(plan).log_lines / plan.access_points * cost("read_cpu")


# --- tables ---

STEPS = (
    ("one of each", Plan()),
    ("four broker nodes", Plan(broker_nodes=4)),
    ("…, ten queues (workflows)", Plan(broker_nodes=4, queues=10)),
    ("…, five access points", Plan(broker_nodes=4, queues=10, access_points=5)),
    ("…, counters every 10 minutes", Plan(broker_nodes=4, queues=10, access_points=5, chirp_interval=600)),
)
"""From one of each to a system that carries 100,000 workers."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def costs_table() -> str:
    """What one of each costs, and what a carrier can bear."""
    rows = [[each.what, amount(each), each.origin, each.source] for each in COSTS.values()]
    limits = [[name, amount(each), each.origin, each.source] for name, each in LIMITS.items()]
    return table(("one …", "costs", "", "from"), rows) + "\n" + table(("… can bear at most", "", "", "why"), limits)


def totals_table(plan: Plan) -> str:
    """A day."""
    totals = count(plan)
    rows = [
        ["runs of workers", f"{totals.lives:,}"],
        ["workers that run at a time, at most", f"{totals.peak_running:,}"],
        ["starts of workers in one minute, at most", f"{totals.peak_starts:,}"],
        ["job event logs", f"{totals.log_bytes / 1e9:,.1f} GB, {totals.log_lines / 1e6:,.0f} million log events"],
        ["… read by the TMS in", f"{totals.log_lines * cost('read_cpu') / 60:,.0f} minutes of processor"],
        ["requests to the WMS", f"{totals.wms_requests:,.0f}, {totals.status_bytes / 1e6:,.0f} MB of statuses"],
        ["messages through the broker", f"{totals.messages / 1e9:,.1f} billion"],
        ["events in one second, at most", f"{totals.peak_events / 60:,.0f}"],
        ["connections to it, at most", f"{totals.connections:,}"],
        ["a TMS that starts at the end of it, without a checkpoint", f"has caught up after {catching_up(plan):,.0f} s"],
    ]
    return table((f"a day of {plan.workers:,} workers and {plan.events:,.0f} events", ""), rows)


def sizes_table(plan: Plan) -> str:
    """Shares of the limits, for systems of several sizes."""
    columns = [loads(plan.of_size(workers)) for workers in SIZES]
    rows = [[each[0].name, *(_share(load.share) for load in each)] for each in zip(*columns, strict=True)]
    return table(("of what it can bear", *(f"{workers:,} workers" for workers in SIZES)), rows)


def steps_table() -> str:
    """The fullest carriers, from step to step."""
    rows = []
    for name, plan in STEPS:
        fullest = sorted(loads(plan), key=lambda load: -load.share)[:4]
        rows.append([name, *(f"{load.name}: {_share(load.share)}" for load in fullest)])
    return table(("100,000 workers, 10⁹ events a day, and", "the fullest", "", "", ""), rows)


def _share(share: float) -> str:
    """What is too much stands out."""
    return f"**{share:.0%}**" if share > 1 else f"{share:.1%}"


def amount(each: Cost) -> str:
    """A figure with its unit, in a size that can be read."""
    if each.unit == "bytes" and each.value >= 1e3:
        power = min(int(math.log10(each.value)) // 3, 4)
        return f"{number(each.value / 1000**power)} {('', 'KB', 'MB', 'GB', 'TB')[power]}"
    return f"{number(each.value)} {each.unit}"


def publish(page: str, plan: Plan) -> str:
    """The page with its tables made anew."""
    parts = {
        "costs": costs_table(),
        "totals": totals_table(plan),
        "sizes": sizes_table(plan),
        "steps": steps_table(),
    }
    for name, part in parts.items():
        page = put(page, name, part)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="put the tables of the default plan into this page")
    for field in attrs.fields(Plan):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default, metavar="N")
    options = vars(parser.parse_args())
    page = options.pop("docs")
    if page is not None:
        page.write_text(publish(page.read_text(encoding="utf-8"), Plan()), encoding="utf-8")
        return
    plan = Plan(**options)
    print(totals_table(plan), sizes_table(plan), sep="\n")
    first = worst(plan)
    print(f"The fullest is: {first.name}, {first.share:.0%} of {amount(first.limit)}")


if __name__ == "__main__":
    main()
