"""What the brokers' servers in a namespace have in common: started, stopped in order, killed, started again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs
import trio

from ewms.secret import Secret
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.steps import PoolUnavailable, Progress, last_line

_START_DEADLINE_S: Final = 90
_STOP_DEADLINE_S: Final = 30
_CONNECTION_TIMEOUT_S: Final = 5
_POLL_S: Final = 0.2
_TELL_EVERY_S: Final = 2


@attrs.define(kw_only=True)
class BrokerServer(ABC):
    """A broker that can be stopped and started again; what it has in its queues survives that."""

    NAME: ClassVar[str]
    USER: ClassVar[str]
    """Who runs it."""
    COMMAND: ClassVar[Sequence[str]]

    port: int
    token: Secret
    version: str = ""
    _inside: Namespace
    _output: Path
    """What its process says goes there."""
    _progress: Progress
    _environment: Mapping[str, str] = attrs.field(factory=dict)
    _process: trio.Process | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """As `EWMS_PILOT_QUEUE_…_BROKER_ADDRESS` has it; the token is not in it."""

    @abstractmethod
    async def _greeting(self, stream: trio.SocketStream) -> str:
        """The version that the server names to who has just connected; "" if it names none."""

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            PoolUnavailable: it does not come up.
        """
        with self._output.open("ab") as log:
            self._process = await self._inside.spawn(self.COMMAND, user=self.USER, env=self._environment, log=log)
        started = told_at = trio.current_time()
        self._progress(f"starting {self.NAME}")
        with trio.move_on_after(_START_DEADLINE_S):
            while self._process.poll() is None:
                if version := await self._answer():
                    self.version = version
                    self._progress(f"{self.NAME} is ready ({trio.current_time() - started:.1f} s)")
                    return
                if trio.current_time() - told_at >= _TELL_EVERY_S:
                    told_at = trio.current_time()
                    self._progress(f"starting {self.NAME} ({told_at - started:.0f} s)")
                await trio.sleep(_POLL_S)
        raise PoolUnavailable(
            f"{self.NAME} does not come up: {last_line(self._output)} (its logs: {self._output.parent})"
        )

    async def stop(self) -> None:
        """Stop it in order; connections are closed, what it has in its queues is kept."""
        process = self._running()
        process.terminate()
        with trio.move_on_after(_STOP_DEADLINE_S):
            await process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it as a crash of its machine would."""
        process = self._running()
        process.kill()
        await process.wait()
        # The server dies of its parent's death, a moment later.
        with trio.move_on_after(_STOP_DEADLINE_S):
            while await self._answer():  # noqa: ASYNC110  a foreign process sets no event
                await trio.sleep(_POLL_S)

    async def _answer(self) -> str:
        """Its version, if it takes connections."""
        try:
            with trio.move_on_after(_CONNECTION_TIMEOUT_S):
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    return await self._greeting(stream)
        except (OSError, trio.BrokenResourceError):
            pass
        return ""

    def _running(self) -> trio.Process:
        assert self._process is not None, "it was never started"
        return self._process
