"""All targets, by name."""

from collections.abc import Mapping
from typing import Final

from tests.fuzz import of_eventlog, of_messages, of_orders, of_state, of_texts, of_wms
from tests.fuzz.target import Target

_MODULES: Final = (of_eventlog, of_messages, of_wms, of_orders, of_state, of_texts)
TARGETS: Final[Mapping[str, Target]] = {target.name: target for module in _MODULES for target in module.TARGETS}
