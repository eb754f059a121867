"""Bytes → counts: the captured logs, HTCondor's own reader as the reference, and every kind of cut and damage."""

from datetime import date
from pathlib import Path
from typing import Any

import daylog
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ewms.tms.eventlog.format import _QUIET, _careful, _clean, cut, frames
from ewms.tms.eventlog.grouping import group_of
from ewms.tms.eventlog.tally import Tally

JEL = Path(__file__).parents[2] / "data" / "jel"
DAY = date(2026, 11, 21)
REMOVED, COMPLETED = {"REMOVED": {"null": 1}}, {"COMPLETED": {"null": 1}}

# log → events, UUID, final statuses, complete, and the job statuses that its jobs went through (proc 0)
CAPTURED: list[tuple[str, int, str | None, dict[str, dict[str, int]], bool, str]] = [
    ("allowed-execute-duration-hold", 8, None, REMOVED, True, "IDLE RUNNING HELD REMOVED"),
    ("chirp-after-sigterm-rm", 30, None, REMOVED, True, "IDLE RUNNING IDLE REMOVED"),
    ("chirp-attr-newline", 9, None, COMPLETED, True, "IDLE RUNNING COMPLETED"),
    ("chirp-set-attr-repeated", 11, None, COMPLETED, True, "IDLE RUNNING COMPLETED"),
    ("condor-rm-running", 8, None, REMOVED, True, "IDLE RUNNING IDLE REMOVED"),
    ("factory-complete-many", 72, None, {"COMPLETED": {"null": 10}}, True, "IDLE RUNNING COMPLETED"),
    ("factory-complete", 44, None, {"COMPLETED": {"null": 6}}, True, "IDLE RUNNING COMPLETED"),
    ("factory-paused-removed", 17, None, {"REMOVED": {"null": 4}}, True, "IDLE HELD REMOVED"),
    ("factory-removed", 13, None, {"REMOVED": {"null": 3}}, True, "IDLE RUNNING IDLE REMOVED"),
    ("factory-with-notes", 8, "TF-1", REMOVED, True, "IDLE REMOVED"),
    ("image-missing-loop", 17, None, REMOVED, True, "IDLE RUNNING IDLE RUNNING IDLE RUNNING IDLE REMOVED"),
    ("input-missing-hold", 9, None, REMOVED, True, "IDLE HELD REMOVED"),
    ("killed-by-signal", 7, None, COMPLETED, True, "IDLE RUNNING COMPLETED"),
    ("on-exit-hold", 8, None, REMOVED, True, "IDLE RUNNING HELD REMOVED"),
    ("on-exit-remove-requeue", 12, None, COMPLETED, True, "IDLE RUNNING IDLE RUNNING COMPLETED"),
    ("output-file-missing-hold", 11, None, REMOVED, True, "IDLE RUNNING IDLE HELD REMOVED"),
    ("periodic-hold", 7, None, REMOVED, True, "IDLE RUNNING HELD REMOVED"),
    ("periodic-remove", 6, None, REMOVED, True, "IDLE RUNNING REMOVED"),
    ("plain-cluster-complete", 21, None, {"COMPLETED": {"null": 3}}, True, "IDLE RUNNING COMPLETED"),
    ("rm-running", 7, None, REMOVED, True, "IDLE RUNNING IDLE REMOVED"),
    ("rm-with-output-transfer", 9, None, REMOVED, True, "IDLE RUNNING IDLE REMOVED"),
    ("shadow-hung-30s", 157, None, COMPLETED, True, "IDLE RUNNING COMPLETED"),
    ("submit-notes-attrs", 2, "TF-1", REMOVED, True, "IDLE REMOVED"),
    ("submit-notes-lost-to-batch-name", 2, None, REMOVED, True, "IDLE REMOVED"),
    ("submit-notes", 2, None, REMOVED, True, "IDLE REMOVED"),
    ("suspend-resume", 9, None, REMOVED, True, "IDLE RUNNING SUSPENDED RUNNING IDLE REMOVED"),
    # By PyPI's ewms-pilot 1.0.5, submitted as today's TMS does: a job ad after each event names the taskforce.
    (
        "todays-pilot",
        31,
        "TF-6b029da8-10ef65aa-655d651c-b007ce9e",
        {"COMPLETED": {"Done": 1}},
        True,
        "IDLE RUNNING COMPLETED",
    ),
    (
        "todays-pilot-removed",
        58,
        "TF-6b029da7-7c1f3821-b4985f6a-d74c2433",
        {"REMOVED": {"null": 2}},
        True,
        "IDLE RUNNING IDLE REMOVED",
    ),
    ("user-hold-and-release", 9, None, REMOVED, True, "IDLE RUNNING IDLE HELD REMOVED"),
    ("vacate-rerun", 12, None, {"RUNNING": {"null": 1}}, False, "IDLE RUNNING IDLE RUNNING"),
    ("vacate", 11, None, REMOVED, True, "IDLE RUNNING IDLE RUNNING IDLE REMOVED"),
]


def log_of(name: str) -> bytes:
    return (JEL / f"{name}.jel").read_bytes()


def tally_of(data: bytes) -> Tally:
    tally = Tally(DAY)
    tally.feed(data[: cut(data)])
    return tally


def state(tally: Tally) -> dict[str, Any]:
    """All of it: nothing may depend on how the log was cut."""
    return tally.dump()


def snapshot(tally: Tally) -> dict[int, Any]:
    return {
        each: (
            cluster.compound_statuses(None),
            {group_of(text): n for text, n in cluster.top_task_errors().items()},
            cluster.completed_at(None) is not None,
        )
        for each, cluster in tally.clusters.items()
        if cluster.jobs
    }


def small_day(workers: int = 8) -> bytes:
    return b"".join(daylog.lines(daylog.Day(taskforces=3, workers=workers, updates=4, seed=7)))


def texts(data: bytes) -> list[bytes]:
    """The events that frames are made of, without the quiet ones."""
    return [text for text, *_ in frames(data).events if not is_quiet(text)]


def is_quiet(event: bytes) -> bool:
    return _QUIET.fullmatch(event + b"\n") is not None


def test_all_captured_logs_have_a_row() -> None:
    assert {row[0] for row in CAPTURED} == {path.stem for path in JEL.glob("*.jel")}


@pytest.mark.parametrize("row", CAPTURED, ids=lambda row: row[0])
def test_captured_log(row: tuple[str, int, str | None, dict[str, dict[str, int]], bool, str]) -> None:
    name, events, uuid, compound, complete, story = row
    tally = Tally(DAY)
    told: list[str] = []
    for event in log_of(name).split(b"\n...\n")[:-1]:
        tally.feed(event + b"\n...\n")
        (cluster,) = tally.clusters.values()
        if len(cluster.codes) and cluster.codes[0]:
            now = cluster._states[cluster.codes[0]].job.partition(":")[0]
            if told[-1:] != [now]:
                told.append(now)
    (cluster,) = tally.clusters.values()
    assert (tally.events, tally.damaged, cluster.uuid) == (events, 0, uuid)
    assert cluster.compound_statuses(None) == compound
    assert (cluster.completed_at(None) is not None) is complete
    assert " ".join(told) == story
    assert state(tally) == state(tally_of(log_of(name)))


@pytest.mark.parametrize("name", [row[0] for row in CAPTURED])
def test_equals_htcondors_own_reader_after_each_event(name: str) -> None:
    from jel_reference import snapshots

    tally = Tally(DAY)
    events = log_of(name).split(b"\n...\n")[:-1]
    for event, expected in zip(events, snapshots(JEL / f"{name}.jel"), strict=True):
        tally.feed(event + b"\n...\n")
        ours = snapshot(tally)
        for cluster, known in expected.items():
            assert ours[cluster] == known, event
        assert ours.keys() == expected.keys()


@pytest.mark.parametrize(
    "day",
    [*(daylog.Day(taskforces=3, workers=8, updates=4, seed=seed) for seed in (7, 8, 9)), daylog.Day(20, 50, seed=10)],
    ids=lambda day: f"{day.taskforces}x{day.workers}-seed-{day.seed}",
)
def test_equals_htcondors_own_reader_at_ten_times_of_a_day(tmp_path: Path, day: daylog.Day) -> None:
    from jel_reference import snapshots

    path = tmp_path / "day.jel"
    path.write_bytes(b"".join(daylog.lines(day)))
    events = [event + b"\n...\n" for event in path.read_bytes().split(b"\n...\n")[:-1]]
    tenth = -(-len(events) // 10)
    tally = Tally(DAY)
    for number, expected in enumerate(snapshots(path, every=tenth)):
        tally.feed(b"".join(events[number * tenth : (number + 1) * tenth]))
        assert snapshot(tally) == expected
    assert tally.events == len(events)


# --- cuts ---

SMALL = small_day(1)


@given(st.lists(st.integers(0, len(SMALL)), max_size=6))
@settings(deadline=None)
def test_any_cut_gives_the_same(cuts: list[int]) -> None:
    tally = Tally(DAY)
    begun = 0
    for end in [*sorted(cuts), len(SMALL)]:
        available = SMALL[begun:end]
        whole = cut(available)
        tally.feed(available[:whole])
        begun += whole
    assert state(tally) == state(tally_of(SMALL))


@given(st.lists(st.integers(0, len(SMALL)), max_size=3))
@settings(deadline=None)
def test_any_restart_from_a_checkpoint_gives_the_same(cuts: list[int]) -> None:
    tally = Tally(DAY)
    begun = 0
    for end in [*sorted(cuts), len(SMALL)]:
        whole = cut(SMALL[begun:end])
        tally.feed(SMALL[begun : begun + whole])
        begun += whole
        tally = Tally.load(tally.dump(), DAY)
    assert state(tally) == state(tally_of(SMALL))


def test_a_snapshot_is_made_anew_of_what_changed_only() -> None:
    execute = b"001 (%d.000.000) 2026-11-22 21:10:28 Job executing on host: <>\n...\n"
    tally = tally_of(b"".join(execute % cluster for cluster in (101, 102, 103)))
    first = {each["cluster_id"]: each for each in tally.dump()["clusters"]}
    tally.feed(execute.replace(b"000.000", b"001.000") % 102)
    tally.clusters[101].close(7)
    second = {each["cluster_id"]: each for each in tally.dump()["clusters"]}
    assert [each for each in first if second[each] is not first[each]] == [101, 102]
    assert second == {each: cluster.dump() for each, cluster in tally.clusters.items()}


def test_a_second_reading_on_top_changes_nothing() -> None:
    tally = tally_of(SMALL)
    before = {each: cluster.compound_statuses(1) for each, cluster in tally.clusters.items()}
    errors = {each: cluster.top_task_errors() for each, cluster in tally.clusters.items()}
    tally.feed(SMALL)
    assert {each: cluster.compound_statuses(1) for each, cluster in tally.clusters.items()} == before
    assert {each: cluster.top_task_errors() for each, cluster in tally.clusters.items()} == errors


@given(st.integers(0, len(SMALL)))
@settings(deadline=None)
def test_on_top_of_any_part_the_whole_is_the_whole(part: int) -> None:
    tally = tally_of(SMALL[:part])
    tally.feed(SMALL, again=True)
    assert snapshot(tally) == snapshot(tally_of(SMALL))


@given(st.integers(0, len(SMALL)), st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
@settings(deadline=None)
def test_of_a_log_that_lost_its_end_no_job_that_ended_begins_anew(known: int, kept: int, cut_at: int) -> None:
    tally = tally_of(SMALL[:known])
    ended = ended_jobs(tally)
    left = SMALL[: cut(SMALL[: min(kept, known)])]
    first = cut(left[:cut_at])
    for data in (left[:first], left[first:]):
        tally.feed(data, again=True)
    assert ended_jobs(tally) == ended


def ended_jobs(tally: Tally) -> dict[int, Any]:
    return {
        each: {status: pilots for status, pilots in found.items() if status in ("COMPLETED", "REMOVED")}
        for each, (found, *_) in snapshot(tally).items()
    }


def test_what_ended_a_job_keeps_its_error_and_its_pilots_last_word() -> None:
    head = b"(101.000.000) 2026-11-21 21:10:28 "
    begins = b"001 " + head + b"Job executing on host: <>\n...\n"
    early = b"008 " + head + b'HTChirpEWMSPilotStatus: "Tasking"\n...\n'
    late = b"008 " + head + b'HTChirpEWMSPilotError: "no such thing"\n...\n005 ' + head + b"Job terminated.\n...\n"
    held = b"012 " + head + b"Job was held.\n\tno reason\n...\n013 " + head + b"Job was released.\n...\n"
    tally = tally_of(begins + early + late)
    told = snapshot(tally)
    assert told == {101: ({"COMPLETED": {"Tasking": 1}}, {"no such thing": 1}, True)}
    tally.feed(begins + held + begins, again=True)
    assert snapshot(tally) == told
    tally.feed(begins)  # what is new is believed: a schedd may lose an end, too, and run the job again
    assert snapshot(tally) == {101: ({"RUNNING": {"null": 1}}, {}, False)}


# --- two ways ---


@pytest.mark.parametrize("data", [pytest.param(log_of(row[0]), id=row[0]) for row in CAPTURED] + [small_day()])
def test_the_short_way_and_the_careful_way_give_the_same(data: bytes) -> None:
    short, careful = _clean(data), _careful(data)
    assert short is not None
    assert [each for each in short.events if not is_quiet(each[0])] == careful.events
    assert (short.count, short.damaged) == (careful.count, careful.damaged) == (data.count(b"\n...\n"), 0)


@pytest.mark.parametrize("quiet", [0, 1, 99, 100, 101, 5000])
def test_any_number_of_quiet_events_is_counted_and_passed_over(quiet: int) -> None:
    update = (
        b"006 (101.000.000) 2026-11-21 21:10:28 Image size of job updated: 1\n\t1  -  MemoryUsage of job (MB)\n...\n"
    )
    told = log_of("plain-cluster-complete").split(b"\n...\n")[0]
    for data in (update * quiet, update * quiet + told + b"\n...\n", told + b"\n...\n" + update * quiet):
        found = _clean(data)
        assert found is not None
        assert [text for text, *_ in found.events if not is_quiet(text)] == [told] * (told in data)
        assert found.count == quiet + (told in data)


@pytest.mark.parametrize("keep", range(60))
@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_quiet_event_hides_no_other(torn: int, keep: int) -> None:
    """Its remains are directly followed by the next event's header."""
    quiet = (
        b"008 (101.005.000) 2026-11-21 21:10:28 HTChirpEWMSPilotTasksTotal: 5",
        b"040 (101.005.000) 2026-11-21 21:10:28 Started transferring input files\n\tTransferring to host: <x>",
    )[torn][:keep]
    held = log_of("periodic-hold").split(b"\n...\n")[5]
    for before in (b"", b"040 (101.005.000) 2026-11-21 21:10:28 Finished transferring input files\n...\n"):
        assert texts(before + quiet + held + b"\n...\n") == [held]


# --- damage ---


@given(st.data(), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_garbage_costs_only_what_it_hit(data: st.DataObject, garbage: bytes) -> None:
    events = SMALL.split(b"\n...\n")[:-1]
    quiet = set(filter(is_quiet, events))
    begin = data.draw(st.integers(0, len(SMALL)))
    length = data.draw(st.sampled_from([0, 1, 30, 500]))
    broken = SMALL[:begin] + garbage + SMALL[begin + length :]
    found = set(texts(broken[: cut(broken)]))
    at, intact = 0, set()
    for event in events:
        if at + len(event) + 5 <= begin or at >= begin + length + 1:
            intact.update({event} - quiet)
        at += len(event) + 5
    # The event behind the garbage may have lost its own terminator to it, never more than that.
    assert len(intact - found) <= 1 + garbage.count(b"\n")
    tally_of(broken).dump()


@pytest.mark.parametrize("keep", [*range(1, 60), 120, 300, 400])
def test_a_torn_event_is_lost_alone(keep: int) -> None:
    """A full disk cuts a write anywhere; what follows directly is the next event's header."""
    first, second, third = log_of("plain-cluster-complete").split(b"\n...\n")[6:9]
    torn = first[:keep] if keep < len(first) else first
    data = torn + second + b"\n...\n" + third + b"\n...\n"
    assert texts(data) == [each for each in (second, third) if not is_quiet(each)]
    assert (frames(data).count, frames(data).damaged) == (2, 1)


def test_torn_at_a_line_end() -> None:
    executing, held = log_of("periodic-hold").split(b"\n...\n")[3], log_of("periodic-hold").split(b"\n...\n")[5]
    data = executing[: executing.index(b"\tCpus")] + held + b"\n...\n"
    assert (texts(data), frames(data).damaged) == ([held], 1)


def test_a_quoted_header_in_an_error_text_is_no_event() -> None:
    quoted = b'008 (056.000.000) 2026-11-21 21:10:28 HTChirpEWMSPilotError: "in the log: 005 (056.000.000) '
    quoted += b'2026-11-21 21:10:27 Job terminated."'
    assert (texts(quoted + b"\n...\n"), frames(quoted + b"\n...\n").damaged) == ([quoted], 0)


def test_windows_line_ends_and_stray_terminators() -> None:
    data = log_of("submit-notes-attrs")
    assert state(tally_of(data.replace(b"\n", b"\r\n"))) == state(tally_of(data))
    assert state(tally_of(b"...\n" + data.replace(b"...\n", b"...\n...\n"))) == state(tally_of(data))


def test_a_log_in_another_format_is_all_damage() -> None:
    tally = tally_of(b"<c>\n  <a n='MyType'><s>SubmitEvent</s></a>\n</c>\n...\n" * 3)
    assert (tally.events, tally.damaged, tally.clusters) == (0, 3, {})


def test_ids_that_cannot_be_are_not_believed() -> None:
    line = b"%s (101.%s.000) 2026-11-21 21:10:28 Job executing on host: <>\n...\n"
    tally = tally_of(line % (b"001", b"999999999999") + line % (b"0x1", b"000") + line % (b"001", b"001"))
    assert tally.clusters[101].compound_statuses(None) == {"RUNNING": {"null": 1}}
    assert (tally.events, tally.damaged) == (2, 1)


def test_unknown_events_change_nothing() -> None:
    data = b"".join(
        b"%03d (101.000.000) 2026-11-21 21:10:28 Whatever may come.\n\tcode\n...\n" % number
        for number in (2, 3, 14, 39, 43, 47, 112, 199, 999)
    )
    tally = tally_of(data)
    assert (tally.events, tally.damaged, snapshot(tally)) == (9, 0, {})
