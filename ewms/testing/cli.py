"""The commands that run parts of the testing kit alone."""

import os
import secrets
import signal
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from ewms import logs
from ewms.groups import told_as
from ewms.secret import Secret
from ewms.testing.wms import Standin, open_standin

_ENV_FILE: Final = Path("wms-standin.env")


@attrs.frozen(kw_only=True)
class StandinOptions:
    """What `ewms wms-standin` was asked for."""

    host: str
    port: int
    db: Path | None
    locations: dict[str, list[str]]
    broker_type: str
    broker_address: str
    broker_token: Secret
    token_lifetime: float
    needs_token: bool
    page_size: int
    launch_delay: float
    env_file: Path


def _locations(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for value in values:
        location, equals, schedd = value.partition("=")
        if not (location and equals and schedd):
            raise click.BadParameter(f"{value!r} is not LOCATION=SCHEDD, e.g. demo=ap.example.org")
        found[location].append(schedd)
    return dict(found)


@click.command("wms-standin")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option(
    "--location",
    "locations",
    metavar="LOCATION=SCHEDD",
    multiple=True,
    required=True,
    callback=_locations,
    help="A cluster location and the full host name of its schedd (the TMS's machine); may be given several times.",
)
@click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the state in this SQLite file, and go on from it.",
)
@click.option("--broker-type", default="rabbitmq", show_default=True, help="What every queue is said to be at.")
@click.option("--broker-address", default="localhost", show_default=True, help="The broker's address.")
@click.option(
    "--broker-token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the queues' token (never given on the command line, where `ps` shows it).",
)
@click.option("--token-lifetime", default=300.0, show_default=True, help="How long a token is good for, in s.")
@click.option("--no-auth", is_flag=True, help="Take every call without a token.")
@click.option("--page-size", default=100, show_default=True, type=click.IntRange(1), help="Objects a page of a query.")
@click.option(
    "--launch-delay", default=0.0, show_default=True, help="How long a workflow takes to `pending-starter`, in s."
)
@click.option(
    "--env-file",
    default=_ENV_FILE,
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write address, token URL, client id and secret for the TMS (mode 0600).",
)
@click.option("--log-level", default="INFO", show_default=True, type=click.Choice(logs.LEVELS, case_sensitive=False))
def wms_standin(broker_token_file: Path | None, no_auth: bool, log_level: str, **rest: object) -> None:
    """Run a stand-in for the WMS, to try the TMS by hand.

    It speaks the WMS's REST API, as strict as the contract, and forgets everything when it ends (unless --db is
    given). Ctrl-C ends it.

    \b
    Examples:
      ewms wms-standin --location demo=$(hostname -f)
    \b
    In another terminal, the TMS against it:
      set -a; . ./wms-standin.env; set +a
      JOB_EVENT_LOG_DIR=$PWD/jobs ewms tms
    \b
    In a third one, a user asks for work, looks at it, and ends it:
      . ./wms-standin.env
      curl -H @wms-standin.header $EWMS_ADDRESS/v1/workflows -d '{
        "public_queue_aliases": ["in", "out"],
        "tasks": [{
          "cluster_locations": ["demo"], "n_workers": 2,
          "input_queue_aliases": ["in"], "output_queue_aliases": ["out"],
          "task_image": "/images/task", "task_args": "cp {{INFILE}} {{OUTFILE}}",
          "worker_config": {
            "do_transfer_worker_stdouterr": true, "max_worker_runtime": 600,
            "n_cores": 1, "priority": 50, "worker_disk": "1 GB",
            "worker_memory": "512 MB", "condor_requirements": ""}}]}'
      curl -H @wms-standin.header $EWMS_ADDRESS/v1/query/taskforces \\
        -d '{"query": {}, "projection": ["workflow_id", "phase", "cluster_id"]}'
      curl -H @wms-standin.header -X POST \\
        $EWMS_ADDRESS/v1/workflows/WF-…/actions/finished
    \b
    Faults, on and off (keys: path, method, count, delay, status, retry_after,
    answer, drop, and after: act first, so that the answer is lost):
      curl $EWMS_ADDRESS/_standin/faults \\
        -d '{"path": "/v1/tms/*", "status": 503, "count": 5}'
      curl $EWMS_ADDRESS/_standin/faults \\
        -d '{"path": "*/condor-submit/*", "drop": true, "after": true, "count": 1}'
      curl -X DELETE $EWMS_ADDRESS/_standin/faults
    \b
    No token that was handed out so far is good any more:
      curl -X DELETE $EWMS_ADDRESS/_standin/tokens
    """
    token = broker_token_file.read_text().strip() if broker_token_file else ""
    options = StandinOptions(broker_token=Secret(token), needs_token=not no_auth, **rest)  # type: ignore[arg-type]
    logs.configure(log_level.upper())
    where = f"{options.host}:{options.port}"
    # The port is taken, a file cannot be written.
    with told_as(OSError, lambda errors: click.ClickException(f"cannot run at {where}: {errors[0]}")):
        trio.run(_run_standin, options)


async def _run_standin(options: StandinOptions) -> None:
    settings = attrs.asdict(options, recurse=False)
    env_file: Path = settings.pop("env_file")
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_standin(**settings, client_secret=Secret(_kept_secret(env_file))) as standin:
            header_file = env_file.with_suffix(".header")
            _write_private(env_file, _variables(standin, options.needs_token))
            _write_private(header_file, [f"Authorization: Bearer {standin.user_token()}"])
            _announce(standin, env_file, header_file)
            async for number in signals:
                click.echo(f"{signal.Signals(number).name}: the stand-in ends.", err=True)
                break


def _kept_secret(env_file: Path) -> str:
    """The secret that an earlier run wrote, so that a TMS that was started with it goes on; else a new one."""
    if env_file.exists():
        for line in env_file.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "EWMS_CLIENT_SECRET" and value:
                return value
    return secrets.token_urlsafe(24)


def _variables(standin: Standin, needs_token: bool) -> list[str]:
    return [
        f"EWMS_ADDRESS={standin.address}",
        f"EWMS_TOKEN_URL={standin.token_url if needs_token else ''}",
        f"EWMS_CLIENT_ID={standin.client_id}",
        f"EWMS_CLIENT_SECRET={standin.client_secret.reveal()}",
    ]


def _write_private(path: Path, lines: Iterable[str]) -> None:
    path.unlink(missing_ok=True)  # a new one, so that its mode is ours
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def _announce(standin: Standin, env_file: Path, header_file: Path) -> None:
    click.echo(f"address:    {standin.address}")
    click.echo(f"token URL:  {standin.token_url}")
    click.echo(f"client id:  {standin.client_id}")
    click.echo(f"secret:     in {env_file} (for the TMS: set -a; . {env_file.resolve()}; set +a)")
    click.echo(f"user token: in {header_file}, for a day (curl -H @{header_file.resolve()} …)")
    click.echo("ready; Ctrl-C ends it")
