"""Draw the picture of `ewms top` that the documentation shows: an invented access point on a busy afternoon."""

from datetime import UTC, datetime
from pathlib import Path

from ewms.tms.overview import Overview, Row, overview
from ewms.tms.top.model import Calls, Site, Snapshot, Trail
from ewms.tms.top.picture import svg
from ewms.tms.top.render import Frame

NOW = datetime(2026, 11, 21, 15, 4, 5, tzinfo=UTC)
_TROUBLE = (
    (3, 41, 0, "held: more memory or disk used than requested: Job has gone over memory limit of 4096 megabytes", {}),
    (0, 0, 0, "no further workers: Failed to materialize job: cannot open spooled submit digest", {}),
    (180, 0, 23, "", {"task failed (exit code 1): ValueError: no GCD frame before the first Q frame": 23}),
    (640, 0, 4, "", {"task failed: [Timeout-Error] timed out after 3600s": 4}),
)


def draw(directory: Path) -> None:
    """The file `top.svg`."""
    trail = Trail("127.0.0.1:9310")
    trail.add(_snapshot(0, 0))
    trail.add(_snapshot(60, 1))
    (directory / "top.svg").write_text(svg(Frame(trail.view(60), NOW), 132, 32))


def _snapshot(at: float, minutes: int) -> Snapshot:
    return Snapshot(
        at=at,
        title="TMS 1.0.0",
        started_at=NOW.timestamp() - 93784,
        overview=_overview(minutes),
        counters={"start orders": 6 * minutes, "submitted": 6 * minutes, "stop orders": 4 * minutes},
        warnings={"pilots fail there much more often than elsewhere": minutes},
        calls={"WMS": Calls(42 * minutes, 0, 1.9 * minutes), "schedd": Calls(25 * minutes, 0, 2.8 * minutes)},
        sites=(
            Site("Black Hole University", 412, 398),
            Site("DESY-HH", 10482, 61),
            Site("MSU", 8120, 33),
            Site("UChicago", 19930, 12),
        ),
        suspicious=("site Black Hole University",),
        excluded=("site Black Hole University",),
        log_lag_bytes=21400,
        report_lag_seconds=74,
        memory=1.9e8,
    )


def _overview(minutes: int) -> Overview:
    troubled = [
        Row(
            f"TF-6b0244e1-8d41a391-28ee3db8-{0x3AFC62C4 + n:08x}",
            "open",
            31207 + n,
            {"RUNNING": running, "IDLE": 12 * n, "HELD": held, "COMPLETED": 40},
            max(0, running - errors),
            texts,
            trouble,
            is_blocked=trouble.startswith("no further"),
        )
        for n, (running, held, errors, trouble, texts) in enumerate(_TROUBLE)
    ]
    busy = [
        Row(
            f"TF-6b05{n:04x}-77c0d1e2-{0x9E3779B1 * n % 2**32:08x}-{0x85EBCA6B * n % 2**32:08x}",
            "open",
            30000 + n,
            {"RUNNING": 1200 - n + (n % 7) * minutes, "IDLE": 200 - 3 * (n % 7) * minutes, "COMPLETED": n % 90},
            1190 - n,
        )
        for n in range(1, 1100)
    ]
    waiting = [Row(f"TF-6b06{n:04x}-00c0ffee-{n:08x}-{n:08x}", "starting") for n in range(6)]
    return overview([*troubled, *busy, *waiting])
