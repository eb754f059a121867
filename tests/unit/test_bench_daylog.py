"""The generator of a busy day: always the same, in the order of time, of about the size asked for, and complete."""

import re
from collections import Counter
from datetime import date

import daylog
import pytest

from ewms.contract import ChirpAttribute
from ewms.tms.eventlog.format import event_time, frames

DAY = daylog.Day(taskforces=6, workers=30, updates=8, seed=3)
EVENTS = list(daylog.lines(DAY))
LOG = b"".join(EVENTS)


def test_it_is_always_the_same() -> None:
    assert list(daylog.lines(DAY)) == EVENTS
    assert list(daylog.lines(daylog.Day(taskforces=6, workers=30, updates=8, seed=4))) != EVENTS


def test_it_has_all_that_a_day_has() -> None:
    numbers = Counter(event[:3].decode() for event in EVENTS)
    assert set(numbers) == {"000", "001", "004", "005", "006", "008", "009", "012", "013", "035", "036", "040"}
    told = {name.decode() for name in re.findall(rb"(?m)^008 .* (HTChirp\w+): ", LOG)}
    assert told == set(ChirpAttribute) - {
        ChirpAttribute.ERROR_TRACEBACK,
        ChirpAttribute.SUMMARY,
        ChirpAttribute.EVENTS_PARKED,
    }
    assert numbers["001"] > numbers["000"]  # some run again
    assert numbers["035"] == 6 > numbers["036"]  # some live on


def test_it_is_a_clean_log_in_the_order_of_time() -> None:
    found = frames(LOG)
    assert (found.count, found.damaged) == (len(EVENTS), 0)
    times = [event_time(event, date(2026, 11, 21)) for event in EVENTS]
    assert None not in times
    assert times == sorted(times, key=lambda time: time or 0)


@pytest.mark.parametrize("events", [2_000, 20_000])
def test_it_is_about_as_large_as_asked_for(events: int) -> None:
    day = daylog.Day.of(events, taskforces=4, workers=50)
    assert sum(1 for _ in daylog.lines(day)) == pytest.approx(events, rel=0.15)
