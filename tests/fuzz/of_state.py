"""Our own files after damage: what they held, or a clear error; never a wrong state."""

import json
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from ewms.tms.condor.wire import WireError, decode_reply, decode_request
from ewms.tms.entries import Entry, parse, serialize
from ewms.tms.errors import LedgerDamaged
from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.checkpoint import Checkpoint
from ewms.tms.eventlog.reader import Position
from ewms.tms.eventlog.tally import Tally
from ewms.tms.ledger import Ledger
from ewms.tms.sitefile import SiteFileError
from ewms.tms.sitefile import parse as parse_sites
from ewms.tms.sites import SiteTally
from tests.fuzz.of_eventlog import DAY, logs
from tests.fuzz.source import Source
from tests.fuzz.target import Target

_ENTRY: Final = Entry(
    taskforce_uuid="TF-1",
    log_path="/scratch/jobs/2026-11-21.tms.jel",
    n_workers=4,
    intended_at=1795294800.5,
    cluster_id=36,
    submit_dict={"universe": "container", "max_idle": 200},
    confirmed_at=1795294801.5,
    withdrawn_clusters=(31, 32),
)


@lru_cache
def _checkpoints() -> list[bytes]:
    return [_text(log).encode() for log in logs()[:8]]


def _text(log: bytes) -> str:
    tally, sites = Tally(DAY), SiteTally()
    sites.take(tally.feed(log), DAY)
    return checkpoint.dump(Checkpoint(Position(len(log), 77, log[:20]), tally, sites))


def checkpoints(data: bytes) -> None:
    """A damaged checkpoint: what was saved, or `ValueError`; with anything else the statuses would be wrong."""
    source = Source(data)
    number = source.integer(0, len(_checkpoints()) - 1)
    whole = _checkpoints()[number]
    damaged = source.damaged(whole) if source.chance() else source.json_bytes(source.changed(_parsed(whole)))
    with tempfile.TemporaryDirectory(prefix="ewms-fuzz-") as directory:
        path = Path(directory, "checkpoint")
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path, DAY)
        except ValueError:
            return
    assert loaded is not None
    assert checkpoint.dump(loaded).encode() == whole


def _parsed(whole: bytes) -> object:
    return json.loads(whole.splitlines()[-1])


def ledgers(data: bytes) -> None:
    """A damaged entry of the ledger: an entry of its own taskforce, or one that counts as an intent; others stay."""
    source = Source(data)
    whole = serialize(_ENTRY)
    damaged = source.damaged(whole) if source.chance() else source.json_bytes(source.changed(json.loads(whole)))
    try:
        found = parse(damaged)
    except LedgerDamaged:
        found = None
    if found is not None:
        assert parse(serialize(found)) == found
    with tempfile.TemporaryDirectory(prefix="ewms-fuzz-") as directory:
        ledger = Ledger(Path(directory, "ledger"))
        kept = Path(directory, "kept.json")
        kept.touch()
        Path(directory, "ledger", "TF-1.json").write_bytes(damaged)
        entry = ledger.read_now("TF-1")
        assert entry is not None
        assert entry.taskforce_uuid == "TF-1"
        assert isinstance(entry.is_unsettled, bool)
        ledger._prune_now(1e18, 10)
        assert kept.exists()


def site_files(data: bytes) -> None:
    """The operator's file of sites: its sites, or `SiteFileError`."""
    text = Source(data).text(12) if data[:1] == b"\0" else data.decode("utf-8", "replace")
    try:
        for attribute, value in parse_sites(text):
            assert attribute in ("GLIDEIN_Site", "OSG_SITE_NAME", "Machine")
            assert value.isprintable()
    except SiteFileError as error:
        assert error.problems


def wire(data: bytes) -> None:
    """A line of the schedd's helper, or to it: read, or `WireError`."""
    source = Source(data)
    known = ({"id": 1, "ok": [{"ClusterId": 3}]}, {"id": 2, "error": {"kind": "refused", "message": "no"}})
    line = source.json_bytes(source.changed(source.choice(known)))
    for decode in (decode_reply, decode_request):
        try:
            decode(line)
        except WireError:
            continue


def _choices() -> Iterator[bytes]:
    for number in range(0, 250, 10):
        yield bytes((number + 3 * step * step) % 256 for step in range(50))


TARGETS: Final = (
    Target("checkpoints", "the TMS's checkpoints, damaged", checkpoints, _choices),
    Target("ledgers", "entries of the TMS's ledger, damaged", ledgers, _choices),
    Target("site-files", "the operator's file of sites", site_files, lambda: [b"GLIDEIN_Site = X\n# y\n", *_choices()]),
    Target("helper-lines", "the lines between the TMS and its schedd helper", wire, _choices),
)
