"""The day of a log's name does not depend on where the access point stands."""

import time
from datetime import UTC, datetime

import pytest

from ewms.tms.today import today


# At any moment, one of these two has another date than UTC has.
@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Etc/GMT-14"])
def test_days_are_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now(UTC).date()
        assert today() in {str(before), str(datetime.now(UTC).date())}
    finally:
        monkeypatch.undo()
        time.tzset()
