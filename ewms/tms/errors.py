"""The TMS's own errors."""


class TmsError(Exception):
    """Something that the TMS expects can go wrong."""


class OrderRefused(TmsError):
    """A start order that cannot be carried out as it is; its text goes to the WMS as the reason."""


class SetupError(TmsError):
    """The TMS cannot run here; its text says what to do."""


class LedgerDamaged(TmsError):
    """A file of the ledger cannot be read as one of ours."""
