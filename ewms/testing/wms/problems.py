"""The one error that a call of the stand-in ends with."""


class Problem(Exception):
    """Becomes an answer with this HTTP status and the body `{code, error}`."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
