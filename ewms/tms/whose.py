"""Whose the jobs will be (pure): whoever runs the TMS."""

from typing import Final

import attrs

from ewms.tms.settings import Settings

_OWN_HELPER: Final = attrs.fields(Settings).schedd_helper.default


def refused(settings: Settings, uid: int) -> str:
    """Why HTCondor would take no job of this user, in words that its own refusal lacks; empty if it would."""
    if uid == 0 and settings.schedd_helper == _OWN_HELPER:
        return "HTCondor takes no jobs of root: run the TMS as the ordinary user who shall own them"
    return ""
