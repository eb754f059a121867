"""What a task must not exceed; pure."""

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """A task's limits; None for no limit. Sizes are in bytes, times in s."""

    memory: int | None = None
    output: int | None = None
    streams: int | None = None
    """Of stdout, and of stderr."""
    silence: float | None = None
    """Without a change of stdout, stderr or the outfile."""
    unacked: float | None = None
    """After which the broker takes an unacknowledged event back."""

    @property
    def of_the_task(self) -> bool:
        """Whether a task can exceed one of them."""
        return any(limit is not None for limit in (self.memory, self.output, self.streams, self.silence))
