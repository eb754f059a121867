"""Chaos is no part of the package: its folder is found from the repository's root, behind everything installed."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))
