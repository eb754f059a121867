"""The chirp protocol of the embedded schedd."""

import attrs
import pytest

from ewms.testing.schedd import chirp


@attrs.define
class Job:
    wants_updates: bool = True
    said: list[str] = attrs.field(factory=list)
    attributes: dict[str, str] = attrs.field(factory=dict)

    def ulog(self, text: str) -> None:
        self.said.append(text)

    def set_attribute(self, name: str, text: str) -> None:
        self.attributes[name] = text

    def attribute(self, name: str) -> str:
        return self.attributes.get(name, "UNDEFINED")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"ulog a", ["ulog", "a"]),
        (b"ulog a\\ b\\\\c", ["ulog", "a b\\c"]),
        (b"  set_job_attr  A  1 ", ["set_job_attr", "A", "1"]),
        (b"ulog \\ a\\ ", ["ulog", " a "]),
        (b"", []),
        (b"ulog \xff", ["ulog", "\udcff"]),
    ],
)
def test_words(line: bytes, words: list[str]) -> None:
    assert chirp.words(line) == words


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a" * 2000, "a" * 1023), ("é" * 600, "é" * 511 + "\udcc3"), ("a\vb", "a"), ("a\0b", "a"), ("a\tb", "a\tb")],
)
def test_what_of_a_text_arrives(text: str, kept: str) -> None:
    assert chirp.cut(text) == kept


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"ulog hello", b"0\n"),
        (b"ulog", b"-8\n"),
        (b"set_job_attr EWMSx 3", b"0\n"),
        (b"set_job_attr Owner 3", b"-2\n"),
        (b"get_job_attr EWMSy", b"3\n4+5"),
        (b"get_job_attr Nope", b"9\nUNDEFINED"),
        (b"set_job_attr_delayed ChirpX 3", b"0\n"),
        (b"set_job_attr_delayed X 3", b"0\n"),
        (b"fly", b"-8\n"),
    ],
)
def test_answers(line: bytes, reply: bytes) -> None:
    job = Job(attributes={"EWMSy": "4+5"})
    assert chirp.answer(line, job) == reply
    assert "X" not in job.attributes  # only names that begin with Chirp are taken
    assert "Owner" not in job.attributes


def test_without_updates_only_delayed_attributes_are_taken() -> None:
    job = Job(wants_updates=False)
    assert chirp.answer(b"ulog hello", job) == b"-8\n"
    assert chirp.answer(b"set_job_attr_delayed ChirpX 3", job) == b"0\n"
    assert (job.said, job.attributes) == ([], {"ChirpX": "3"})
