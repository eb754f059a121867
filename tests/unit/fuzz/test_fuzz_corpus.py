"""Every target of `nox -s fuzz` on the inputs that it begins with: all findings that were mended are among them."""

import pytest

from tests.fuzz.target import CORPUS, limited
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_again(name: str) -> None:
    for data in TARGETS[name].inputs():
        with limited():
            TARGETS[name].run(data)


def test_every_corpus_has_its_target() -> None:
    """What a renamed target leaves behind would never be run again."""
    kept = {path.parent.name for path in CORPUS.glob("*/*")}
    assert kept <= TARGETS.keys()
    assert all(path.stat().st_size <= 4096 for path in CORPUS.glob("*/*"))
