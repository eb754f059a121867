"""Names that settings had: still read, with a warning, until a release that is named."""

import attrs
import pytest
import structlog.testing
from reference import settings_page

from ewms.pilot.settings import PilotSettings
from ewms.settings import Deprecated, deprecated_in_use, load, variable, variables, warn_of_deprecated
from ewms.tms.settings import Settings as TMSSettings


@attrs.frozen
class Renamed:
    port: int = variable("TMS_PORT", "a port", default=1, deprecated=(Deprecated("TMS_OLD_PORT", removed_in="2.0"),))


def test_an_old_name_is_read_where_the_new_one_is_not_set() -> None:
    assert load(Renamed, {}).port == 1
    assert load(Renamed, {"TMS_OLD_PORT": "5"}).port == 5
    assert load(Renamed, {"TMS_OLD_PORT": "5", "TMS_PORT": "6"}).port == 6


@pytest.mark.parametrize("environ", [{"TMS_OLD_PORT": "5"}, {"TMS_OLD_PORT": "5", "TMS_PORT": "6"}])
def test_who_uses_it_is_warned(environ: dict[str, str]) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_deprecated(Renamed, environ)
    assert lines == [
        {
            "log_level": "warning",
            "event": "a setting has another name now",
            "name": "TMS_OLD_PORT",
            "use": "TMS_PORT",
            "removed_in": "2.0",
        }
    ]


def test_nobody_else_is() -> None:
    assert deprecated_in_use(Renamed, {"TMS_PORT": "6"}) == []


@pytest.mark.parametrize("cls", [TMSSettings, PilotSettings])
def test_no_name_means_two_settings(cls: type) -> None:
    names = [name for _, var in variables(cls) for name in var.names]
    assert len(names) == len(set(names))


def test_the_reference_tells_them() -> None:
    assert "a port (deprecated, until 2.0: `TMS_OLD_PORT`)" in settings_page("Settings", Renamed)
