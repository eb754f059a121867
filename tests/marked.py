"""Parts of a documentation page that a command writes: between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

import re
from collections.abc import Sequence
from pathlib import Path


def put(page: Path, name: str, part: str) -> None:
    """Put a part between its marks; raises ValueError where the page has none."""
    marks = re.compile(rf"(<!-- {re.escape(name)}: begin -->\n).*?(<!-- {re.escape(name)}: end -->)", re.DOTALL)
    text, count = marks.subn(lambda match: f"{match[1]}\n{part}\n{match[2]}", page.read_text())
    if not count:
        raise ValueError(f"{page} has no marks for {name}")
    page.write_text(text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in cells) + "\n"
