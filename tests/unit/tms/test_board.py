"""What the report station reads from the board."""

from ewms.tms.board import Board, day_of

LOG = "2026-11-21.tms.jel"


def event(number: int, text: str, proc: int = 0, cluster: int = 7) -> bytes:
    return f"{number:03d} ({cluster:03d}.{proc:03d}.000) 2026-11-21 21:00:00Z {text}\n...\n".encode()


def submit(uuid: str | None = "TF-1", proc: int = 0, cluster: int = 7) -> bytes:
    note = f"\n    EWMSTaskforceUUID={uuid}" if uuid else ""
    return event(0, f"Job submitted from host: <x>{note}", proc, cluster)


EXECUTE = event(1, "Job executing on host: <x>")
REMOVED = event(36, "Cluster removed\n\tMaterialized 1 jobs from 0 items.\tComplete", -1)


def test_a_change_stays_until_a_report_that_is_still_true_was_accepted() -> None:
    board = Board()
    board.tally(LOG).feed(submit())
    first = board.changed()
    assert [report.compound_statuses for report in first] == [{"IDLE": {"null": 1}}]
    assert board.changed() == first
    board.tally(LOG).feed(EXECUTE)
    board.accepted(first)
    second = board.changed()
    assert [report.compound_statuses for report in second] == [{"RUNNING": {"null": 1}}]
    board.accepted(second)
    assert board.changed() == []


def test_there_and_back_again_is_no_change() -> None:
    board = Board()
    board.tally(LOG).feed(submit())
    board.accepted(board.changed())
    board.tally(LOG).feed(EXECUTE + event(4, "Job was evicted."))
    assert board.changed() == []


def test_only_what_changed_is_reported() -> None:
    board = Board()
    for cluster in range(100, 120):
        board.tally(LOG).feed(submit(f"TF-{cluster}", cluster=cluster))
    board.accepted(board.changed())
    board.tally(LOG).feed(event(1, "Job executing on host: <x>", cluster=105))
    assert [report.uuid for report in board.changed()] == ["TF-105"]


def test_an_expected_cluster_is_told_of_before_the_log_speaks() -> None:
    board = Board()
    board.expect("TF-1", 7, 3)
    (report,) = board.changed()
    assert (report.cluster_id, report.compound_statuses) == (7, {"IDLE": {"null": 3}})
    board.tally(LOG).feed(submit() + EXECUTE)
    (report,) = board.changed()
    assert report.compound_statuses == {"RUNNING": {"null": 1}, "IDLE": {"null": 2}}


def test_expectation_names_a_cluster_that_its_log_does_not() -> None:
    board = Board()
    board.tally(LOG).feed(submit(None) + EXECUTE)
    assert board.changed() == []
    assert board.unnamed(LOG) == [7]
    board.expect("TF-1", 7, 0)
    (report,) = board.changed()
    assert (report.uuid, report.compound_statuses) == ("TF-1", {"RUNNING": {"null": 1}})
    assert board.unnamed(LOG) == []


def test_an_expectation_of_another_cluster_does_not_count_here() -> None:
    board = Board()
    board.expect("TF-1", 8, 3)
    board.tally(LOG).feed(submit())
    (report,) = board.changed()
    assert (report.cluster_id, report.compound_statuses) == (7, {"IDLE": {"null": 1}})


def test_only_a_log_is_a_witness() -> None:
    board = Board()
    board.expect("TF-2", 8, 3)
    board.tally(LOG).feed(submit())
    assert (board.places("TF-1"), board.places("TF-2"), board.places("TF-3")) == ([(LOG, 7)], [], [])


def test_completion_is_in_the_report_and_comes_once() -> None:
    board = Board()
    board.tally(LOG).feed(submit() + EXECUTE + event(5, "Job terminated.") + REMOVED)
    (report,) = board.changed()
    assert report.completed_at == 1795294800
    board.accepted([report])
    board.tally(LOG).feed(REMOVED)
    assert board.changed() == []


def test_jobs_whose_end_the_log_lost_are_gone_with_their_cluster() -> None:
    story = b"".join(submit(proc=proc) + event(1, "Job executing on host: <x>", proc) for proc in range(4))
    story += event(9, "Job was aborted.", 0) + event(5, "Job terminated.", 1) + event(12, "Job was held.\n\tby hand", 2)
    for is_told_by_the_log in (True, False):
        board = Board()
        board.expect("TF-1", 7, 4)
        board.tally(LOG).feed(story + (REMOVED if is_told_by_the_log else b""))
        board.ended("TF-1", 1795294900)
        (report,) = board.changed()
        assert report.compound_statuses == {"REMOVED": {"null": 3}, "COMPLETED": {"null": 1}}
        assert report.completed_at is not None


def test_the_schedd_may_say_that_a_cluster_has_ended() -> None:
    board = Board()
    board.tally(LOG).feed(submit() + EXECUTE)
    board.accepted(board.changed())
    board.ended("TF-1", 1795294900)
    (report,) = board.changed()
    assert report.completed_at == 1795294900


def test_a_cluster_in_two_logs_counts_each_job_once_and_the_later_log_wins() -> None:
    board = Board()
    old, new = "2026-11-20.tms.jel", LOG
    error = event(8, 'HTChirpEWMSPilotError: "oh"', 1)
    board.tally(old).feed(submit() + submit(proc=1) + EXECUTE + error)
    board.tally(new).feed(event(5, "Job terminated.") + submit())
    (report,) = board.changed()
    assert report.compound_statuses == {"COMPLETED": {"null": 1}, "IDLE": {"null": 1}}
    assert report.top_task_errors == {"oh": 1}
    board.tally(old).feed(REMOVED)
    (report,) = board.changed()
    assert report.completed_at is not None


def test_a_log_is_dropped_when_all_of_it_was_told() -> None:
    board = Board()
    board.tally(LOG).feed(submit() + EXECUTE)
    assert not board.drop(LOG)
    board.tally(LOG).feed(REMOVED)
    assert not board.drop(LOG)
    board.accepted(board.changed())
    assert board.drop(LOG)
    assert board.changed() == []
    assert board.report("TF-1") is None


def test_what_was_told_in_doubt_is_told_again_when_that_is_over_and_its_log_stays() -> None:
    board = Board()
    board.tally(LOG).feed(submit() + EXECUTE + REMOVED)
    told = board.changed()
    board.accepted(told, in_doubt={"TF-1"})
    assert board.changed() == []
    assert not board.drop(LOG)
    board.tell_again(["TF-1"])
    assert board.changed() == told
    board.accepted(told)
    assert board.drop(LOG)


def test_a_log_that_was_never_read_is_dropped_too() -> None:
    assert Board().drop(LOG)


def kept_for_taskforces(board: Board) -> int:
    """How many things it keeps besides the logs' tallies."""
    return sum(len(kept) for name, kept in vars(board).items() if name != "_tallies")


def test_what_is_over_is_given_back_and_comes_back_when_it_is_expected_again() -> None:
    board = Board()
    board.expect("TF-1", 7, 1)
    board.expect("TF-2", 8, 3)
    board.expect("TF-2", 9, 3)  # a second attempt
    board.tally(LOG).feed(submit() + EXECUTE + REMOVED)
    board.accepted(board.changed())
    board.forget_all_but(lambda uuid: uuid == "TF-2")
    assert [report.uuid for report in board.changed()] == []
    assert kept_for_taskforces(board) == 3  # of TF-2: expected, its name, accepted
    assert board.places("TF-1") == [(LOG, 7)]  # the log is still a witness
    board.expect("TF-1", 7, 1)
    assert [report.completed_at for report in board.changed()] == [1795294800]
    board.forget_all_but(lambda _: False)
    assert kept_for_taskforces(board) == 0
    assert board.drop(LOG)


def test_a_cluster_that_is_over_is_not_called_foreign() -> None:
    board = Board()
    board.expect("TF-1", 7, 0)
    board.tally(LOG).feed(submit(None) + EXECUTE + REMOVED)
    board.forget_all_but(lambda _: False)
    assert board.unnamed(LOG) == []


def test_the_day_of_a_log() -> None:
    assert day_of("2026-11-21.tms.jel").isoformat() == "2026-11-21"
    assert day_of("other.log") is not None
