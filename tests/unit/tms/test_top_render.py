"""Frames, as text: what stands where on a narrow, a wide and a small terminal."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from ewms.tms.overview import Row, overview
from ewms.tms.top.model import Calls, Site, Snapshot, Trail, View
from ewms.tms.top.picture import svg
from ewms.tms.top.render import Frame

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
ROWS = [
    Row(
        "TF-6b0244e1-8d41a391-28ee3db8-00000001",
        "open",
        118,
        {"RUNNING": 40, "HELD": 12},
        40,
        {},
        "held: no memory " + "x" * 200,
    ),
    Row("TF-6b0244e1-8d41a391-28ee3db8-00000002", "open", 119, {"RUNNING": 7}, 5, {"[red]bad\x1b[2J\nframe": 2}),
    *(Row(f"TF-busy-{n:04d}", "open", 200 + n, {"RUNNING": 9000 - n, "IDLE": 1}, 8000) for n in range(4000)),
    Row("TF-over", "ended", 3, {"COMPLETED": 5}, has_ended=True),
]


def trail() -> Trail:
    found = Trail("127.0.0.1:9310")
    for at, count in ((0, 0), (60, 30)):
        found.add(
            Snapshot(
                at=at,
                title="TMS 0.3.1",
                started_at=NOW.timestamp() - 7200,
                overview=overview(ROWS),
                counters={"submitted": count},
                calls={"WMS": Calls(count, count / 10, count / 20)},
                sites=(Site("HOLE", 20, 19), Site("GOOD", 4000, 1)),
                suspicious=("site HOLE",),
                report_lag_seconds=12,
            )
        )
    return found


def lines(view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=StringIO(), record=True)
    console.print(Frame(view, NOW))
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("height", [24, 50])
def test_it_fits_its_terminal(width: int, height: int) -> None:
    frame = lines(trail().view(60), width, height)
    assert len(frame) == height
    assert max(map(len, frame)) <= width


def test_a_narrow_frame() -> None:
    frame = "\n".join(line.rstrip() for line in lines(trail().view(60), 80, 24))
    assert frame.startswith("ewms top · TMS 0.3.1 · 127.0.0.1:9310 · up 2 h 00 min")
    assert "HELD 12" in frame
    assert "1 ended, 4,002 open; 2 in trouble" in frame
    assert "submitted 30" in frame
    assert "30/min, 0.050 s each, 3/min failed" in frame
    assert "log 0 B; report 12 s" in frame
    assert "! " in frame
    assert "TF-6b0244…-00000001    40    ·   12" in frame
    assert "held: no memory" in frame
    assert "… and 3,99" in frame
    assert "HOLE" in frame
    assert "19 (95%)" in frame
    assert "[red]bad" in frame


def test_a_wide_frame_has_whole_names_and_sites_beside_errors() -> None:
    frame = lines(trail().view(60), 160, 40)
    row = next(line for line in frame if ROWS[0].uuid in line)
    assert row.split()[:3] == [ROWS[0].uuid, "open", "118"]
    assert any("HOLE" in line and "[red]bad" in line for line in frame)


def test_the_rest_says_how_many_of_it_are_in_trouble() -> None:
    bad = [Row(f"TF-{n}", "open", n, {"HELD": 1}, 0, {}, "held: x") for n in range(900)]
    view = View("x", Snapshot(at=0, title="TMS", overview=overview(bad)))
    assert lines(view, 80, 20)[-1].startswith("… and 887 more, 887 of them in trouble")


def test_many_alarms_leave_room_for_the_rest() -> None:
    stuck = {f"child-{n}": 1000.0 for n in range(30)}
    view = View("x", Snapshot(at=0, title="TMS", overview=overview(ROWS), stuck=stuck))
    frame = lines(view, 80, 24)
    assert len(frame) == 24
    assert sum("shows no life" in line for line in frame) == 3
    assert any("… and 27 more" in line for line in frame)
    assert any("… and 3,99" in line for line in frame)


def test_nothing_from_outside_reaches_the_terminal_as_a_command() -> None:
    view = trail().view(60)
    console = Console(width=160, height=30, file=(out := StringIO()), force_terminal=True)
    console.print(Frame(view, NOW))
    assert "\x1b[2J" not in out.getvalue()
    assert "bad [2J frame" in out.getvalue()


def test_a_source_that_never_answered_and_one_that_is_gone() -> None:
    gone = Trail("127.0.0.1:9310")
    gone.lost(0, "Connection refused")
    assert "no answer for 5 s: Connection refused" in "\n".join(lines(gone.view(5), 80, 24))
    lost = trail()
    lost.lost(61, "Connection refused")
    frame = "\n".join(lines(lost.view(91), 80, 24))
    assert "no answer for 30 s: Connection refused" in frame
    assert "HELD 12" in frame


def test_a_picture_is_svg_and_asks_nobody() -> None:
    picture = svg(Frame(trail().view(60), NOW), 100, 30)
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "HOLE" in picture
    assert "url(http" not in picture.replace('"', "")
