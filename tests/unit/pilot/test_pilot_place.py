"""The site and host that a pilot tells."""

import pytest

from ewms.contract import ChirpAttribute
from ewms.pilot.chirp import Value
from ewms.pilot.place import Place, read
from ewms.pilot.report import Report


@pytest.mark.parametrize(
    ("ad", "place"),
    [
        ('Machine = "n1.x.org"\nGLIDEIN_Site = "MWT2"\nOSG_SITE_NAME = "Other"\n', Place("MWT2", "n1.x.org")),
        ('machine = "n1"\nOSG_SITE_NAME = "Wichita State University"', Place("Wichita State University", "n1")),
        ('GLIDEIN_Site = ""\nOSG_SITE_NAME = "Second"', Place("Second", "")),
        (r'GLIDEIN_Site = "a \"b\" \\ c"', Place(r'a "b" \ c', "")),
        ("GLIDEIN_Site = undefined\nMachine = Name\nMachineOther", Place("", "")),
        ("", Place("", "")),
    ],
)
def test_what_the_machines_ad_says(ad: str, place: Place) -> None:
    assert read(ad) == place


class Sent:
    def __init__(self) -> None:
        self.attributes: dict[ChirpAttribute, Value] = {}

    async def set(self, name: ChirpAttribute, value: Value) -> None:
        self.attributes[name] = value


async def test_a_report_tells_only_what_is_known() -> None:
    sent = Sent()
    report = Report(interval=1)
    report.place("", "n1.x.org")
    await report.send(sent)
    assert sent.attributes.keys() == {ChirpAttribute.HOST, ChirpAttribute.LAST_UPDATED_TIMESTAMP}
    assert sent.attributes[ChirpAttribute.HOST] == "n1.x.org"
    report.place("MWT2", "")
    await report.send(sent)
    assert sent.attributes[ChirpAttribute.SITE] == "MWT2"
