"""Sphinx configuration; the settings reference and pictures are made from the code at every build."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import write_reference  # noqa: E402
from screenshot import draw  # noqa: E402

project = "EWMS on HTCondor"
author = "The EWMS developers"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

write_reference(HERE / "reference")
draw(HERE / "reference")
