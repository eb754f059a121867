"""What the demo shows while it runs: a live panel on a terminal, a line every two seconds elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import attrs
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

_PLAIN_EVERY_S: Final = 2.0


@attrs.define
class Progress:
    """What is known of the workflow at this moment."""

    n_events: int
    sent: int = 0
    collected: int = 0
    phase: str = "requested"
    cluster_id: int | None = None
    compound_statuses: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict)
    top_task_errors: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def workers(self) -> str:
        """Workers by job status and pilot status, such as `RUNNING/Tasking 4`."""
        parts = [
            f"{job}/{'-' if pilot == 'null' else pilot} {count}"
            for job, pilots in sorted(self.compound_statuses.items())
            for pilot, count in sorted(pilots.items())
        ]
        return ", ".join(parts) or "none yet"

    @property
    def errors(self) -> str:
        """The task errors with their counts."""
        return ", ".join(f"{count} x {text}" for text, count in self.top_task_errors.items()) or "none"


class Display:
    """Prints to one console; `live` keeps a `Progress` on it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._started = trio.current_time()
        self._last_plain = 0.0
        self._live: Live | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the display was made."""
        return trio.current_time() - self._started

    def say(self, text: str) -> None:
        """One line of what happens, with the time that has passed."""
        self.console.print(f"[{self.elapsed:6.1f} s] {text}", markup=False)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Redraw a `Progress` in place (terminals only) while the context lasts."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, progress: Progress) -> None:
        """Draw `progress`."""
        if self._live is not None:
            self._live.update(self._panel(progress), refresh=True)
        elif self.elapsed - self._last_plain >= _PLAIN_EVERY_S:
            self._last_plain = self.elapsed
            self.say(
                f"{progress.phase} · cluster {progress.cluster_id or '-'} · workers: {progress.workers} · "
                f"events in {progress.sent}, out {progress.collected} · errors: {progress.errors}"
            )

    def _panel(self, progress: Progress) -> Group:
        table = Table.grid(padding=(0, 2))
        rows = {
            "taskforce": f"{progress.phase} (cluster {progress.cluster_id or '-'})",
            "workers": progress.workers,
            "events": f"{progress.sent} in, {progress.collected} out of {progress.n_events}",
            "errors": progress.errors,
            "elapsed": f"{self.elapsed:.0f} s",
        }
        for name, value in rows.items():
            table.add_row(name, value)
        return Group(table, ProgressBar(total=progress.n_events, completed=progress.collected, width=60))
