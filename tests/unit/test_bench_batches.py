"""The bench's batches: which tasks fail, what a killed worker lost, one run that several rows tell of."""

from pathlib import Path

from endtoend_runs import Case, lost_s
from figures import Figures

EVICTED = """\
000 (007.000.000) 2026-11-22 10:00:00 Job submitted from host: <127.0.0.1:9618>
...
001 (007.000.000) 2026-11-22 10:00:05 Job executing on host: <127.0.0.1:9618>
...
004 (007.001.000) 2026-11-22 10:00:07 Job was evicted.
...
004 (007.000.000) 2026-11-22 10:00:15 Job was evicted.
...
001 (007.000.000) 2026-11-22 10:00:20 Job executing on host: <127.0.0.1:9618>
...
005 (007.000.000) 2026-11-22 10:00:40 Job terminated.
...
"""


def test_one_task_in_twenty_fails() -> None:
    calm, failing = (Case(tasks=2000, slots=8, bundle=100, fails=fails) for fails in (False, True))
    assert (calm.results, failing.results) == (2000, 1900)


def test_what_an_eviction_lost_is_the_time_since_the_execution_began(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(EVICTED)
    assert lost_s(log) == 10


def test_rows_that_share_runs_get_them_in_their_order() -> None:
    numbers = iter(range(1, 10))
    shared = Figures(lambda: {"time": (number := next(numbers)), "rate": 100 / number})
    time, rate = shared["time"], shared["rate"]
    assert [time(), time()] == [1, 2]
    assert [rate(), rate()] == [100, 50]
