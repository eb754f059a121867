"""What a call to the WMS can end with; no text here ever holds a token or an answer's body with one."""

from collections.abc import Iterable


class WMSError(Exception):
    """A call to the WMS did not succeed."""


class WMSUnavailable(WMSError):
    """Transient: nobody answered, or the answer says "not now".

    The call may or may not have been acted upon. The client retries these itself; a caller sees one only when the
    client was opened with a limited number of attempts.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, is_open: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """What the answer asked for, in s."""
        self.is_open = is_open
        """Whether the call may be acted upon yet, after others that follow it: it was sent, and nobody answered."""


class WMSUnauthorized(WMSUnavailable):
    """The token was refused although it is fresh, it lacks the TMS's role, or the issuer refuses our credentials.

    It counts as transient, because the cure (a new secret, a role) happens on the other side while the TMS keeps its
    clusters watched; each try is logged as an error, and the backoff keeps it from spinning.
    """


class WMSNotFound(WMSError):
    """The WMS itself says 404: it knows no such taskforce, or none in the phase that the call needs."""


class WMSRefused(WMSError):
    """The WMS says that the call is wrong (a 4xx other than 401, 403, 404, 408 and 429); it will say so again."""

    def __init__(self, call: str, status: int, error: str) -> None:
        super().__init__(f"the WMS refused {call} with {status}: {error}")
        self.status = status
        self.error = error
        """The WMS's own words."""


class WMSMalformed(WMSError):
    """The WMS answered something that is not what the contract says."""

    def __init__(self, what: str, problems: Iterable[str], *, taskforce_uuid: str | None = None) -> None:
        self.problems = tuple(problems)
        self.taskforce_uuid = taskforce_uuid
        """The taskforce that the answer was about, where that much could be read: it can be told through `/failed`."""
        named = f" about {taskforce_uuid}" if taskforce_uuid else ""
        super().__init__(f"the WMS sent a malformed {what}{named}: {'; '.join(self.problems)}")
