"""A frame as an SVG picture."""

import re
from io import StringIO
from typing import Final

from rich.console import Console

from ewms.tms.top.render import Frame

_FONT_FACE: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def svg(frame: Frame, width: int, height: int) -> str:
    """The picture of a frame on a terminal of so many columns and lines."""
    console = Console(width=width, height=height, record=True, file=StringIO(), force_terminal=True)
    console.print(frame)
    picture = console.export_svg(title="ewms top", unique_id="ewms-top")
    # rich names a font on the internet: a picture in a document shall ask no other machine for anything.
    return _FONT_FACE.sub("", picture)
