"""How long a worker may run: the ads' numbers, and what is made of them."""

import pytest

from ewms.pilot.lease import Lease, number, read

MACHINE = "MachineMaxVacateTime = 10 * 60\nTimeToLive = 2147483647\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("600", 600),
        ("10 * 60", 600),
        ("(10*60)", 600),
        ("1.5 * 2 * 3", 9),
        ("a + 1", None),
        ("undefined", None),
        ("", None),
        ('"6"', None),
    ],
)
def test_number(text: str, value: float | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("job", "machine", "lease"),
    [
        ("", "", Lease(None, 10)),
        ('Cmd = "x"\n', MACHINE, Lease(None, 590)),
        ("JobMaxVacateTime = 30\n", MACHINE, Lease(None, 20)),
        ("JobMaxVacateTime = 5\n", MACHINE, Lease(None, 0)),
        ("AllowedExecuteDuration = 3600\n", "", Lease(4600, 10)),
        ("allowedexecuteduration=3600\nAllowedJobDuration = 60\n", "", Lease(1060, 10)),
        ("", "GLIDEIN_ToDie = 5000\nTimeToLive = 100\n", Lease(1100, 10)),
        ("AllowedExecuteDuration = undefined\n", "", Lease(None, 10)),
        (
            "",
            "MachineMaxVacateTime = ifThenElse(a, 1, 2)\n",
            Lease(None, 10, ("an ad of this job is not understood: MachineMaxVacateTime = ifThenElse(a, 1, 2)",)),
        ),
    ],
)
def test_read(job: str, machine: str, lease: Lease) -> None:
    assert read(job, machine, now=1000) == lease
