"""The TMS's own errors."""

from typing import ClassVar


class TmsError(Exception):
    """Something that the TMS expects can go wrong."""


class OrderRefused(TmsError):
    """A start order that cannot be carried out as it is; its text goes to the WMS as the reason."""


class SetupError(TmsError):
    """The TMS cannot run here now; its text says what to do."""

    exit_status: ClassVar[int] = 1
    """How `ewms tms` ends: 1 for what may come back by itself, such as a mount."""


class SettingWrong(SetupError):
    """It cannot run here before somebody changes a setting: no restart mends that."""

    exit_status: ClassVar[int] = 2


class LedgerDamaged(TmsError):
    """A file of the ledger cannot be read as one of ours."""
