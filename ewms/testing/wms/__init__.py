"""A stand-in for the WMS: its TMS-facing REST API and its users' calls over real HTTP, as strict as the contract.

`open_standin` runs it in a test or the demo; `ewms wms-standin` runs it alone. The stations of a request:
`server.py` (hypercorn) → `wire.py` (records it, applies `faults.py`) → `app.py` (routes, tokens, `schema.py`) →
`state.py` (what each call does) → `phases.py`, `filters.py`, `workflows.py` (pure) and `store.py` (what is kept).
"""

from ewms.testing.wms.faults import Fault
from ewms.testing.wms.server import Standin, open_standin
from ewms.testing.wms.wire import Observer, Request

__all__ = ["Fault", "Observer", "Request", "Standin", "open_standin"]
