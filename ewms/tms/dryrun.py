"""`DRYRUN`: show what would be submitted, and touch nothing."""

import json
import time
from collections.abc import Iterable
from typing import NoReturn

import structlog
import trio

from ewms.contract import day_log_name
from ewms.tms.errors import OrderRefused
from ewms.tms.exclusions import load
from ewms.tms.settings import Settings
from ewms.tms.sitefile import SiteFile
from ewms.tms.submission import build
from ewms.wms.client import WMS
from ewms.wms.errors import WMSError
from ewms.wms.models import StartOrder

log = structlog.stdlib.get_logger(__name__)


async def run_dry(settings: Settings, wms: WMS, schedd_name: str, site_file: SiteFile) -> NoReturn:
    """Print the submit description of each new start order, for ever; nothing else is touched."""
    log.info("dry run: nothing will be submitted, removed or reported", schedd=schedd_name)
    exclusions = await trio.to_thread.run_sync(load, settings)
    shown: str | None = None
    while True:
        try:
            order = await wms.next_start_order(schedd_name)
        except WMSError as error:
            log.error("order cannot be understood", error=str(error))
        else:
            if order is not None and order.taskforce.taskforce_uuid != shown:
                shown = order.taskforce.taskforce_uuid
                avoided = [*site_file.avoided, *exclusions.avoided()]
                print(describe(order, settings, avoided), flush=True)  # noqa: T201  it is this mode's output
        await trio.sleep(settings.outer_loop_wait)


def describe(order: StartOrder, settings: Settings, avoided: Iterable[tuple[str, str]] = ()) -> str:
    """The submit description as one would write it, without the envfile's values."""
    log_path = settings.job_dir / day_log_name(time.strftime("%Y-%m-%d", time.gmtime()))
    uuid = order.taskforce.taskforce_uuid
    try:
        submission = build(order, settings, log_path, avoided)
    except OrderRefused as refusal:
        return f"# taskforce {uuid} would be refused: {refusal}"
    lines = [f"{key} = {value}" for key, value in submission.description.items()]
    variables = [line.removeprefix("export ").partition("=")[0] for line in submission.envfile.splitlines()[1:]]
    return "\n".join(
        [
            f"# taskforce {uuid}",
            *lines,
            f"queue {submission.n_workers}",
            f"# {submission.envfile_path.name} would set: {json.dumps(variables)}",
        ]
    )
