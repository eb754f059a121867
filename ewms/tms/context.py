"""What the stations of one running TMS share."""

import attrs
import trio

from ewms.liveness import Pulse
from ewms.tms.board import Board
from ewms.tms.condor.base import Acted, Schedd
from ewms.tms.exclusions import Exclusions
from ewms.tms.freshness import Freshness
from ewms.tms.history import History
from ewms.tms.ledger import Ledger
from ewms.tms.lookup import exactly
from ewms.tms.metrics import Metrics
from ewms.tms.outbox import Outbox
from ewms.tms.settings import Settings
from ewms.tms.sitefile import SiteFile
from ewms.tms.sites import Sites
from ewms.wms.client import WMS
from ewms.wms.errors import WMSNotFound
from ewms.wms.models import Taskforce


@attrs.frozen
class Context:
    """Made once by the service, handed to each of its children."""

    settings: Settings
    schedd_name: str
    """This access point towards the WMS."""
    wms: WMS
    schedd: Schedd
    ledger: Ledger
    outbox: Outbox
    board: Board
    metrics: Metrics = attrs.field(factory=Metrics)
    pulse: Pulse = attrs.field(factory=Pulse)
    sites: Sites = attrs.field(factory=Sites)
    fresh: Freshness = attrs.field(factory=Freshness)
    exclusions: Exclusions = attrs.field(factory=Exclusions)
    site_file: SiteFile = attrs.field(factory=SiteFile)
    history: History = attrs.field(init=False)
    waiting: dict[str, str] = attrs.field(factory=dict)
    """Taskforces whose start is tried again, and why it did not get through."""
    caught_up: trio.Event = attrs.field(factory=trio.Event)
    """Set when all that the job event logs had at the start has been read: before, the board knows a part of it."""

    @history.default
    def _default_history(self) -> History:
        return History(self.schedd, self.metrics)

    def avoided(self) -> list[tuple[str, str]]:
        """Machine attributes, and the values that a new worker's machine must not have."""
        return [*self.site_file.avoided, *self.exclusions.avoided()]

    async def recheck(self, uuid: str) -> Taskforce | None:
        """The taskforce as the WMS sees it now; None when it does not know it."""
        try:
            return await self.wms.taskforce(uuid)
        except WMSNotFound:
            return None

    async def remove(self, uuid: str, cluster_id: int, reason: str) -> Acted:
        """Remove the cluster, only where its id and its UUID match; its pilots get their vacate time."""
        acted = await self.schedd.act("remove", exactly(uuid, cluster_id), reason=reason)
        self.metrics.removes.inc("removed" if acted.succeeded else "nothing to remove")
        return acted
