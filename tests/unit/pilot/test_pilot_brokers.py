"""Choosing an adapter, and loading no more than that one."""

import subprocess
import sys
from pathlib import Path

import pytest

from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import BrokerRefused
from ewms.pilot.brokers.local import directory_of
from ewms.secret import Secret


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BrokerRefused, match="unknown broker type 'kafka'; known are: local, nats, pulsar, rabbitmq"):
        open_broker("kafka", "x", Secret(""))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there the adapter cannot be used at all")
def test_a_client_that_is_not_installed_is_said_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ewms.pilot.brokers.nats", None)
    with pytest.raises(BrokerRefused, match=r"pip install 'ewms-htcondor\[nats\]'"):
        open_broker("nats", "x", Secret(""))


def test_the_embedded_broker_loads_no_asyncio_client() -> None:
    code = (
        "import sys, ewms.pilot.brokers.local, ewms.pilot.events;"
        "print([m for m in ('trio_asyncio', 'aiormq', 'nats', 'pulsar', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("address", "path"), [("local:///a/b", "/a/b"), ("/a/b", "/a/b"), ("a", "a")])
def test_the_embedded_brokers_address(address: str, path: str) -> None:
    assert directory_of(address) == Path(path)


@pytest.mark.parametrize("address", ["", "local://", "amqp://host/x"])
def test_an_address_that_is_no_directory(address: str) -> None:
    with pytest.raises(BrokerRefused, match="must be local:///DIRECTORY"):
        directory_of(address)


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerRefused, match="cannot be opened"):
        async with open_broker("local", str(tmp_path / "file" / "x"), Secret("")):
            pass
