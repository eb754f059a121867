"""`DRYRUN`: show what would be submitted, and touch nothing."""

import json
from collections.abc import Iterable
from typing import NoReturn

import structlog
import trio

from ewms.contract import day_log_name
from ewms.tms.condor.base import CondorError, Schedd
from ewms.tms.errors import OrderRefused
from ewms.tms.exclusions import load
from ewms.tms.inspection import inspect_submission
from ewms.tms.settings import Settings
from ewms.tms.sitefile import SiteFile
from ewms.tms.submission import build
from ewms.tms.today import today
from ewms.wms.client import WMS
from ewms.wms.errors import WMSError
from ewms.wms.models import StartOrder

log = structlog.stdlib.get_logger(__name__)


async def run_dry(settings: Settings, wms: WMS, schedd: Schedd, schedd_name: str, site_file: SiteFile) -> NoReturn:
    """Print what would become of each new start order, for ever; nothing is touched.

    The WMS offers the same order until it is confirmed, which a dry run does not do: only the first one is seen.
    """
    log.info("dry run: nothing will be submitted, removed or reported", schedd=schedd_name)
    exclusions = await trio.to_thread.run_sync(load, settings)
    shown: str | None = ""
    while True:
        try:
            order = await wms.next_start_order(schedd_name)
            offered = order.taskforce.taskforce_uuid if order else None
            if order is None and shown is not None:
                log.info("no taskforce waits for its start", schedd=schedd_name)
            elif order is not None and offered != shown:
                avoided = [*site_file.avoided, *exclusions.avoided()]
                print(await describe(order, settings, schedd, avoided), flush=True)  # noqa: T201  this mode's output
            shown = offered
        except WMSError as error:
            log.error("order cannot be understood", error=str(error))
        except CondorError as error:
            log.warning("HTCondor does not answer, trying again", error=str(error))
        await trio.sleep(settings.outer_loop_wait)


async def describe(
    order: StartOrder, settings: Settings, schedd: Schedd, avoided: Iterable[tuple[str, str]] = ()
) -> str:
    """The submit description as one would write it, without the envfile's values; or why it would be refused."""
    log_path = settings.job_dir / day_log_name(today())
    uuid = order.taskforce.taskforce_uuid
    try:
        submission = build(order, settings, log_path, avoided)
        await inspect_submission(schedd, order, submission, settings.job_dir)
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
