"""The mirror out of a machine's apt sources, in both forms, with what does not count."""

import pytest

from ewms.testing.pool.apt import find_mirror

DEB822 = """\
# a comment
Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main

Types: deb-src deb
# another one
URIs: http://mirror.example.org/debian
  https://second.example.org/debian
Suites: bookworm
Components: main
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("debian.sources", DEB822, "http://mirror.example.org/debian"),
        ("debian.sources", DEB822.replace("Types: deb-src deb", "Enabled: no\nTypes: deb"), None),
        ("debian.sources", "Types: deb-src\nURIs: http://m/debian\n", None),
        ("debian.sources", "Types: deb\nURIs: https://m/debian/\n", "https://m/debian/"),
        ("sources.list", "deb http://m/debian bookworm main\n", "http://m/debian"),
        (
            "sources.list",
            "#deb http://old/debian buster main\ndeb http://m/debian sid main # mine\n",
            "http://m/debian",
        ),
        ("sources.list", "deb [arch=amd64 signed-by=/k] http://m/debian sid main\n", "http://m/debian"),
        ("sources.list", "deb-src http://m/debian sid main\n", None),
        ("sources.list", "deb http://security.debian.org/debian-security sid main\n", None),
        ("sources.list", "deb http://archive.ubuntu.com/ubuntu noble main\n", None),
        ("cloud.list", "deb https://packages.example.com/apt cloud main\n", None),
        ("sources.list", "", None),
    ],
)
def test_mirror(name: str, text: str, expected: str | None) -> None:
    assert find_mirror([(name, text)]) == expected


def test_first_archive_of_several_files() -> None:
    files = [("sources.list", ""), ("node.sources", "Types: deb\nURIs: https://deb.example.com/node\n")]
    assert find_mirror([*files, ("debian.sources", DEB822)]) == "http://mirror.example.org/debian"
