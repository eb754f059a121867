"""Versions of other people's software that the tests saw: a record, and the table on a page that is made from it.

    python docs/versions.py build/versions-seen.json

takes over what test runs wrote, in the form of the record: `{"HTCondor": {"25.14.1": "2026-11-22"}}`, name, version,
and the day of the last run with it.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

RECORD: Final = Path(__file__).parent / "versions.json"
PAGE: Final = Path(__file__).parent / "releases.md"
BEGIN: Final = "<!-- versions: nox -s versions -->\n"
END: Final = "<!-- end of versions -->\n"

Record = Mapping[str, Mapping[str, str]]


def merged(record: Record, seen: Record) -> Record:
    """The record with what was seen since."""
    return {name: {**record.get(name, {}), **seen.get(name, {})} for name in sorted({*record, *seen}, key=str.lower)}


def table(record: Record) -> str:
    """The record for people, the newest versions first."""
    lines = ["| | tested with (last on) |", "|---|---|"]
    for name, versions in record.items():
        newest_first = sorted(versions.items(), key=lambda pair: _number(pair[0]), reverse=True)
        lines.append(f"| {name} | {', '.join(f'{version} ({day})' for version, day in newest_first)} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, record: Record) -> str:
    """The page with the record's table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(record)}{END}{after}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split("."))


def main(paths: list[str]) -> None:
    """Take over what these files say."""
    record: Record = json.loads(RECORD.read_text())
    for path in paths:
        record = merged(record, json.loads(Path(path).read_text()))
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), record))
    print(table(record), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
