"""What single events do to a job, hold reasons in words, texts in groups, notes and dates."""

import time
from collections.abc import Iterator
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.tms.eventlog.cluster import MAX_STATES
from ewms.tms.eventlog.format import _minute, _odd_time, classad_value, event_time, taskforce_named
from ewms.tms.eventlog.grouping import group_of
from ewms.tms.eventlog.statuses import hold_reason
from ewms.tms.eventlog.tally import Tally

DAY = date(2026, 11, 21)


def event(number: int, text: str, proc: int = 0, cluster: int = 7, at: str = "2026-11-21 21:00:00Z") -> bytes:
    return f"{number:03d} ({cluster:03d}.{proc:03d}.000) {at} {text}\n...\n".encode()


def chirp(name: str, value: str, proc: int = 0) -> bytes:
    return event(8, f'HTChirpEWMSPilot{name}: "{value}"', proc)


def fold(*events: bytes) -> Tally:
    tally = Tally(DAY)
    tally.feed(b"".join(events))
    return tally


def statuses(*events: bytes, n_workers: int | None = None) -> dict[str, dict[str, int]]:
    return fold(*events).clusters[7].compound_statuses(n_workers)


SUBMIT = event(0, "Job submitted from host: <x>")
EXECUTE = event(1, "Job executing on host: <x>")
TASKING = chirp("Status", "Tasking")
ERROR = chirp("Error", "task failed (exit code 1): no such thing")


@pytest.mark.parametrize(
    ("number", "text", "status", "pilot"),
    [
        (1, "Job executing on host: <x>", "RUNNING", "null"),
        (4, "Job was evicted.", "IDLE", "null"),
        (5, "Job terminated.", "COMPLETED", "Tasking"),
        (6, "Image size of job updated: 1", "RUNNING", "Tasking"),
        (7, "Shadow exception!\n\tmessage", "IDLE", "null"),
        (9, "Job was aborted.", "REMOVED", "Tasking"),
        (10, "Job was suspended.", "SUSPENDED", "Tasking"),
        (11, "Job was unsuspended.", "RUNNING", "Tasking"),
        (13, "Job was released.", "IDLE", "null"),
        (21, "Error from starter on slot1@vm:\n\tx", "RUNNING", "Tasking"),
        (22, "Job disconnected, attempting to reconnect\n    x", "RUNNING", "Tasking"),
        (23, "Job reconnected to slot1@vm", "RUNNING", "Tasking"),
        (24, "Job reconnection failed\n    x", "IDLE", "null"),
        (0, "Job submitted from host: <x>", "RUNNING", "Tasking"),  # again, or late: it is known
    ],
)
def test_effect_on_a_running_job(number: int, text: str, status: str, pilot: str) -> None:
    last = event(number, text)
    assert statuses(SUBMIT, EXECUTE, TASKING, last) == {status: {pilot: 1}}
    kept = {} if pilot == "null" else {"task failed (exit code 1): no such thing": 1}
    assert fold(SUBMIT, EXECUTE, TASKING, ERROR, last).clusters[7].top_task_errors() == kept


def test_a_hold_keeps_the_pilots_status_until_release() -> None:
    held = event(12, "Job was held.\n\tit took long\n\tCode 47 Subcode 0")
    before = {"HELD: the job executed longer than allowed: it took long": {"Tasking": 1}}
    assert statuses(SUBMIT, EXECUTE, TASKING, held) == before
    assert statuses(SUBMIT, EXECUTE, TASKING, held, event(13, "Job was released.")) == {"IDLE": {"null": 1}}


def test_executing_before_submitted_is_one_job() -> None:
    assert statuses(EXECUTE, SUBMIT) == {"RUNNING": {"null": 1}}


def test_numbers_chirped_change_nothing() -> None:
    told = fold(SUBMIT, event(8, "HTChirpEWMSPilotTasksTotal: 5"), event(8, "free text"), event(8, ""))
    assert told.clusters[7].compound_statuses(None) == {"IDLE": {"null": 1}}


def test_the_current_error_is_the_last_one() -> None:
    told = fold(SUBMIT, EXECUTE, ERROR, chirp("Error", "another"), chirp("ErrorTraceback", "long"))
    assert told.clusters[7].top_task_errors() == {"another": 1}


def test_an_error_that_was_cut_still_counts() -> None:
    cut_short = event(8, 'HTChirpEWMSPilotError: "' + "x" * 950)
    assert fold(SUBMIT, cut_short).clusters[7].top_task_errors() == {"x" * 299 + "…": 1}


def test_an_error_that_quotes_a_status_is_an_error() -> None:
    told = fold(SUBMIT, EXECUTE, TASKING, chirp("Error", 'it said HTChirpEWMSPilotStatus: \\"Done\\"'))
    assert told.clusters[7].compound_statuses(None) == {"RUNNING": {"Tasking": 1}}
    assert told.clusters[7].top_task_errors() == {'it said HTChirpEWMSPilotStatus: "Done"': 1}


def test_top_ten_errors_in_groups_with_one_example_each() -> None:
    words = ["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa", "lambda"]
    events = [chirp("Error", f"{words[proc % 11]} in /data/{proc}/x", proc) for proc in range(11 * 3 - 1)]
    errors = fold(*events).clusters[7].top_task_errors()
    assert len(errors) == 10
    assert errors["alpha in /data/0/x"] == 3
    assert "lambda in /data/10/x" not in errors


def test_the_ten_most_common_hold_reasons_with_one_example_each_and_the_others_together() -> None:
    words = ["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
    held = [
        event(12, f"Job was held.\n\t{word} at /data/{each}/x\n\tCode 3 Subcode 0", 20 * number + each)
        for number, word in enumerate(words)
        for each in range(15 - number)
    ]
    found = fold(*held, chirp("Status", "Tasking", 239), EXECUTE.replace(b".000.", b".300.", 1))
    found.feed(event(12, "Job was held.\n\tmu at /data/1/x\n\tCode 3 Subcode 0", 239))
    told = found.clusters[7].compound_statuses(None)
    assert told["HELD: the job's own policy: alpha at /data/0/x"] == {"null": 15}
    assert told["HELD: the job's own policy: kappa at /data/0/x"] == {"null": 6}
    assert told["HELD: (further reasons)"] == {"null": 5 + 4, "Tasking": 1}
    assert told["RUNNING"] == {"null": 1}
    assert len(told) == 10 + 1 + 1


def test_workers_not_materialized_are_idle_until_the_cluster_is_removed() -> None:
    factory = event(35, "Cluster submitted from host: <x>", -1)
    removed = event(36, "Cluster removed\n\tMaterialized 1 jobs from 0 items.\tIncomplete", -1)
    assert statuses(factory, n_workers=5) == {"IDLE": {"null": 5}}
    assert statuses(factory, SUBMIT, EXECUTE, n_workers=5) == {"RUNNING": {"null": 1}, "IDLE": {"null": 4}}
    assert statuses(factory, SUBMIT, event(9, "Job was aborted."), removed, n_workers=5) == {"REMOVED": {"null": 1}}


@pytest.mark.parametrize(
    ("with_factory", "procs", "n_workers", "complete"),
    [(True, 2, None, False), (True, 2, 2, True), (True, 2, 3, False), (False, 2, None, True), (False, 2, 3, False)],
)
def test_complete_by_terminal_counts(with_factory: bool, procs: int, n_workers: int | None, complete: bool) -> None:
    events = [event(35, "Cluster submitted from host: <x>", -1)] if with_factory else []
    for proc in range(procs):
        events += [event(0, "Job submitted from host: <x>", proc), event(5, "Job terminated.", proc)]
    ended = fold(*events).clusters[7].completed_at(n_workers)
    assert ended == (1795294800 if complete else None)


def test_what_a_closed_cluster_hears_changes_nothing() -> None:
    removed = event(36, "Cluster removed\n\tMaterialized 1 jobs from 0 items.\tComplete", -1)
    done = event(5, "Job terminated.")
    tally = fold(SUBMIT, EXECUTE, ERROR, done, removed, EXECUTE, TASKING, SUBMIT)
    cluster = tally.clusters[7]
    assert cluster.compound_statuses(1) == {"COMPLETED": {"null": 1}}
    assert cluster.top_task_errors() == {"task failed (exit code 1): no such thing": 1}
    assert len(cluster.codes) == 0
    assert not cluster.errors


def test_a_factory_that_stopped_by_itself_is_told_and_one_on_hold_is_not() -> None:
    stopped = event(37, "Job Materialization Paused\n\tbad row 3\n\tPauseCode 1", -1)
    by_hand = event(37, "Job Materialization Paused\n\tvia condor_hold\n\tPauseCode 1\n\tHoldCode 1", -1)
    resumed = event(38, "Job Materialization Resumed\n\tresume", -1)
    assert fold(stopped).clusters[7].paused == "bad row 3"
    assert fold(by_hand).clusters[7].paused is None
    assert fold(stopped, resumed).clusters[7].paused is None


def test_states_are_bounded_whatever_the_log_says() -> None:
    def wild() -> Iterator[bytes]:
        for n in range(MAX_STATES + 100):
            word = "".join(chr(97 + int(digit)) for digit in str(n))
            yield event(12, f"Job was held.\n\treason {word}\n\tCode 3 Subcode 0")
            yield chirp("Status", f"odd {word}")

    cluster = fold(*wild()).clusters[7]
    assert cluster.compound_statuses(None) == {"HELD: (further reasons)": {"null": 1}}
    assert len(cluster.dump()["states"]) <= MAX_STATES + 5
    assert len(cluster._examples) <= MAX_STATES


# --- hold reasons ---


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("\tx (by user ewms)\n\tCode 1 Subcode 0", "held by its user: x (by user ewms)"),
        ("\tsomething new\n\tCode 99 Subcode 3", "hold code 99: something new"),
        ("\tCode 45 Subcode -1000", "the container runtime's test failed"),
        ("\tReason unspecified\n\tCode 99 Subcode 0", "hold code 99"),
        ("\tReason unspecified", "no reason given"),
        ("\tno code follows", "no code follows"),
        ("", "no reason given"),
    ],
)
def test_hold_reason(body: str, reason: str) -> None:
    text = f"012 (069.000.000) 2026-11-21 21:29:40 Job was held.\n{body}".rstrip("\n")
    assert hold_reason(text.encode()) == reason


# --- groups ---


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("task failed (exit code 137): Killed", "task failed (exit code 137): Killed"),
        ("[Errno 28] No space left on device: '/scratch/17/out.npy'", "[Errno 28] No space left on device: '<path>'"),
        ("bad frame 12 in run 0x3fA of 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "bad frame <n> in run <id> of <id>"),
        ("Error from slot1_3@vm.example.org: timed out after 3600s", "Error from <slot>: timed out after <n>s"),
        ("failed to send to <[fd00::2]:11953>: refused", "failed to send to <address>: refused"),
        ("cannot reach 10.0.0.17:5672", "cannot reach <address>"),
        ("GET https://host.example.org/a?b=1 failed: status 503", "GET <url> failed: status 503"),
    ],
)
def test_grouping(text: str, group: str) -> None:
    assert group_of(text) == group


# --- notes and dates ---


@pytest.mark.parametrize(
    ("note", "uuid"),
    [
        (b'    [ EWMSTaskforceUUID = "TF-1" ]', "TF-1"),
        (b'    [ EWMSTaskforceUUID = "TF-1"; JobBatchName = "b n" ]', "TF-1"),
        (b'    [ JobBatchName = "b n"; EWMSTaskforceUUID = "TF-1" ]', "TF-1"),
        (b"    EWMSTaskforceUUID=TF-1", "TF-1"),
        (b'    [ JobBatchName = "b n" ]\n    EWMSTaskforceUUID=TF-1', "TF-1"),
        (b'EWMSTaskforceUUID = "TF-1"', "TF-1"),
        (b"    a note\n    EWMSTaskforceUUID=TF-1", "TF-1"),
        (b"    USERNOTE y", None),
        (b'    [ JobBatchName = "EWMSTaskforceUUID" ]', None),
    ],
)
def test_the_log_names_the_taskforce(note: bytes, uuid: str | None) -> None:
    submit = b"000 (012.000.000) 2026-11-21 21:00:26 Job submitted from host: <x>\n" + note
    assert taskforce_named(submit) == uuid


def test_a_note_wins_over_a_job_ad() -> None:
    ad = event(28, 'Job ad information event triggered.\nCluster = 7\nEWMSTaskforceUUID = "TF-ad"')
    note = event(0, "Job submitted from host: <x>\n    EWMSTaskforceUUID=TF-note")
    assert fold(ad).clusters[7].uuid == "TF-ad"
    assert fold(ad, note).clusters[7].uuid == "TF-note"
    assert fold(note, ad).clusters[7].uuid == "TF-note"


@pytest.fixture
def chicago(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    _minute.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    _minute.cache_clear()


@pytest.mark.usefixtures("chicago")
@pytest.mark.parametrize(
    "when",
    [
        "2026-11-21 20:00:00",
        "2026-11-22 02:00:00Z",
        "2026-11-22 02:00:00.123Z",
        "2026-11-21 20:00:00.123",
        "2026-11-21T20:00:00",
        "2026-11-21 20:00:00+02:00",  # HTCondor's own reader takes it as local, too
        "11/21 20:00:00",
        "11/22 02:00:00Z",
        "11/21 20:00:00.123",
    ],
)
def test_dates_of_every_option(when: str) -> None:
    assert event_time(event(36, "Cluster removed", -1, at=when), DAY) == 1795312800
    data = event(36, "Cluster removed", -1, at=when)
    assert fold(data).clusters[7].removed_at == 1795312800


def test_legacy_dates_over_new_year_and_nonsense() -> None:
    assert event_time(b"005 (007.000.000) 01/01 00:00:00Z x", date(2026, 12, 31)) == 1798761600
    assert event_time(b"005 (007.000.000) 2026-02-30 00:00:00Z x", DAY) is None
    assert event_time(b"005 (007.000.000) soon", DAY) is None


_DATES = st.from_regex(rb"(2026-\d\d-\d\d[ T]|\d\d/\d\d )\d\d:\d\d:\d\d(\.\d{1,3})?Z? [a-z:0-9 ]{0,20}", fullmatch=True)


@given(_DATES, st.integers(0, 40), st.binary(max_size=3))
def test_the_short_way_to_a_date_gives_what_the_long_one_does(text: bytes, at: int, damage: bytes) -> None:
    damaged = b"005 (007.000.000) " + text[:at] + damage + text[at + len(damage) :]
    assert event_time(damaged, DAY) == _odd_time(damaged, DAY)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"Tasking"', "Tasking"),
        (b'"say \\"hi\\" and \\\\"', 'say "hi" and \\'),
        (b'"line\\nnext"', "line\nnext"),
        (b'"cut sho', "cut sho"),
        (b"17", "17"),
        (b'"\xff\x00"', "\ufffd\ufffd"),
    ],
)
def test_classad_values(raw: bytes, text: str) -> None:
    assert classad_value(raw) == text
