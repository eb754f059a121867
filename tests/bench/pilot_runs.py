"""Runs of pilots on the machine of `pilot_machine.py`, and of what they are compared with; each gives its figures."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiormq_alone
import attrs
import launcher_cost
import noop_pilot
import pika
from pilot_machine import PYTHON, TASK_IMAGE, PilotMachine

from ewms.contract import TASK_DATA_DIR
from ewms.pilot import events
from ewms.testing.pool.rabbitmq import USER as BROKER_USER

COPY = "cp {{INFILE}} {{OUTFILE}}"
APPTAINER = {"_EWMS_PILOT_CONTAINER_PLATFORM": "apptainer"}
POLL_S = 0.02
PATIENCE_S = 600


@attrs.define
class Runs:
    """Everything on one machine; names of queues and directories are used once."""

    machine: PilotMachine
    _number: int = 0

    # --- what is measured ---

    def pilot_rate(self, count: int, slots: int, args: str = COPY, **settings: str) -> float:
        """Events/s of ours."""
        with self._queues(count) as queues:
            environment = queues.settings(slots, args) | APPTAINER | settings
            return queues.rate(slots, [PYTHON, "-m", "ewms", "pilot"], environment)

    def pypi_rate(self, count: int, slots: int, args: str = COPY) -> float:
        """Events/s of the PyPI package `ewms-pilot`."""
        with self._queues(count) as queues:
            return queues.rate(slots, *self._pypi(queues, slots, args))

    def xargs_rate(self, count: int, slots: int, task: str = "cp {in} {out}") -> float:
        """Containers/s of bare `apptainer run` through xargs, with the pilot's own options and mounts."""
        with self._directory() as directory:
            for number in range(count):
                for name in ("io", "scratch"):
                    (directory / str(number) / name).mkdir(parents=True)
                (directory / str(number) / "io" / "in").write_text(f"event {number}")
            (directory / "hub").mkdir()
            self.machine.own(directory)
            io = f"{TASK_DATA_DIR}/task-io"
            words = [
                *(
                    "/usr/bin/apptainer",
                    "-s",
                    "run",
                    "--containall",
                    "--no-eval",
                    "--workdir",
                    f"{directory}/%/scratch",
                ),
                *("--mount", f"type=bind,source={directory}/hub,target={TASK_DATA_DIR}/data-hub"),
                *("--mount", f"type=bind,source={directory}/%/io,target={io}"),
                *(TASK_IMAGE, task.replace("{in}", f"{io}/in").replace("{out}", f"{io}/out")),
            ]
            script = f"seq 0 {count - 1} | xargs -P {slots} -I% {' '.join(words)}"
            began = time.perf_counter()
            self._run(["/bin/sh", "-c", script], directory, {})
            took = time.perf_counter() - began
            assert all((directory / str(number) / "io" / "out").exists() for number in range(count))
        return count / took

    def own_cost(self, count: int, slots: int = 1) -> dict[str, float]:
        """What `noop_pilot.py` says of so many events; and `rate`, events/s."""
        with self._queues(count) as queues:
            environment = queues.settings(slots, "{{INFILE}} {{OUTFILE}}")
            said = self._json([PYTHON, noop_pilot.__file__], queues.directory, environment)
            assert said["events"] == count, said
        return said

    def launcher_cost(self, count: int) -> dict[str, float]:
        """What `launcher_cost.py` says of so many containers."""
        with self._queues(0) as queues:
            environment = queues.settings(1, "true")
            return self._json([PYTHON, launcher_cost.__file__, str(count)], queues.directory, environment)

    def client_alone(self, count: int, slots: int = 1) -> dict[str, float]:
        """What `aiormq_alone.py` says of so many events."""
        with self._queues(count) as queues:
            words = [str(count), str(slots), queues.incoming, queues.outgoing]
            environment = {"ADDRESS": self.machine.rabbit.address, "TOKEN": self.machine.rabbit.token.reveal()}
            return self._json([PYTHON, aiormq_alone.__file__, *words], queues.directory, environment)

    def first_task_s(self, **settings: str) -> float:
        """From the exec of ours to the first line of the first task, in a container of a directory image (s)."""
        with self._queues(1) as queues:
            environment = queues.settings(1, _WHEN) | APPTAINER | settings
            return self._first_task_s(queues, f"{PYTHON} -m ewms pilot", environment)

    def pypi_first_task_s(self) -> float:
        """The same of the PyPI package."""
        with self._queues(1) as queues:
            argv, environment = self._pypi(queues, 1, _WHEN)
            return self._first_task_s(queues, " ".join(argv), environment)

    # --- how ---

    def _first_task_s(self, queues: "_Queues", command: str, environment: Mapping[str, str]) -> float:
        script = f"date +%s.%N > {queues.directory}/exec; exec {command}"
        self._run(["/bin/sh", "-c", script], queues.directory, environment)
        began = float((queues.directory / "exec").read_text())
        return float(queues.output()) - began

    def _pypi(self, queues: "_Queues", slots: int, args: str) -> tuple[Sequence[str], dict[str, str]]:
        pypi = self.machine.pypi
        assert pypi is not None
        more = {
            "EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST": str(queues.directory),
            **APPTAINER,
        }
        python, environment = pypi.command_inside
        return [python, "-m", "ewms_pilot"], {**queues.settings(slots, args), **environment, **more}

    def _json(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> dict[str, float]:
        said: dict[str, float] = json.loads(self._run(argv, directory, environment).splitlines()[-1])
        return said

    def _run(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
        """Run a command inside to its end; what it printed."""
        command = self.machine.command(argv, cwd=directory)
        done = subprocess.run(command, check=False, env=dict(environment), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: exit status {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        self._number += 1
        directory = self.machine.new_directory(str(self._number))
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    @contextmanager
    def _queues(self, count: int) -> Iterator["_Queues"]:
        """Two new queues, with so many events in the first one."""
        rabbit = self.machine.rabbit
        credentials = pika.PlainCredentials(BROKER_USER, rabbit.token.reveal())
        parameters = pika.ConnectionParameters("127.0.0.1", rabbit.port, credentials=credentials, heartbeat=0)
        connection = pika.BlockingConnection(parameters)
        with self._directory() as directory:
            channel = connection.channel()
            queues = _Queues(self.machine, channel, directory, f"in-{self._number}", f"out-{self._number}", count)
            try:
                queues.fill()
                yield queues
            finally:
                for name in (queues.incoming, queues.outgoing):
                    channel.queue_delete(name)
                connection.close()


@attrs.frozen
class _Queues:
    machine: PilotMachine
    channel: Any
    directory: Path
    """Of the one who works on them."""
    incoming: str
    outgoing: str
    count: int

    def fill(self) -> None:
        for name in (self.incoming, self.outgoing):
            self.channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        properties = pika.BasicProperties(delivery_mode=2)
        for number in range(self.count):
            self.channel.basic_publish("", self.incoming, events.encode(f"event {number}"), properties)
        self._until(lambda: self._length(self.incoming) == self.count)

    def settings(self, slots: int, args: str) -> dict[str, str]:
        """A pilot's, all others at their defaults."""
        rabbit = self.machine.rabbit
        found = {
            "EWMS_PILOT_TASK_IMAGE": TASK_IMAGE,
            "EWMS_PILOT_TASK_ARGS": args,
            "EWMS_PILOT_MAX_CONCURRENT_TASKS": str(slots),
        }
        for direction, name in (("INCOMING", self.incoming), ("OUTGOING", self.outgoing)):
            found |= {
                f"EWMS_PILOT_QUEUE_{direction}": name,
                f"EWMS_PILOT_QUEUE_{direction}_AUTH_TOKEN": rabbit.token.reveal(),
                f"EWMS_PILOT_QUEUE_{direction}_BROKER_TYPE": "rabbitmq",
                f"EWMS_PILOT_QUEUE_{direction}_BROKER_ADDRESS": rabbit.address,
            }
        return found

    def rate(self, slots: int, argv: Sequence[str], environment: Mapping[str, str]) -> float:
        """Outputs/s from the first round of the slots on: a pilot's start is a row of its own."""
        log = self.directory / "pilot.log"
        with log.open("wb") as output:
            pilot = subprocess.Popen(
                self.machine.command(argv, cwd=self.directory), env=dict(environment), stdout=output, stderr=output
            )
        try:
            first, first_at = self._outputs(slots, pilot, log)
            last, last_at = self._outputs(self.count, pilot, log)
            pilot.wait()
        finally:
            pilot.kill()
            pilot.wait()
        return (last - first) / (last_at - first_at)

    def output(self) -> str:
        """The data of an output."""
        _, _, body = self.channel.basic_get(self.outgoing, auto_ack=True)
        return str(events.decode(body, None).data)

    def _outputs(self, count: int, pilot: "subprocess.Popen[bytes]", log: Path) -> tuple[int, float]:
        """Wait for so many outputs; how many there are then, and when that is."""
        while (length := self._length(self.outgoing)) < count:
            if pilot.poll() is not None:
                raise RuntimeError(f"the pilot ended after {length} of {self.count}: {log.read_text()[-2000:]}")
            time.sleep(POLL_S)
        return length, time.perf_counter()

    def _length(self, name: str) -> int:
        return int(self.channel.queue_declare(name, passive=True).method.message_count)

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "the broker does not take the events"
            time.sleep(POLL_S)


_WHEN = "sh -c 'date +%s.%N > {{OUTFILE}}'"
