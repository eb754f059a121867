"""ClassAds → what JSON can carry (`base.py` says how). It needs no bindings itself: any ad with `lookup` will do."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

from ewms.tms.condor.base import Value


class ClassAdLike(Protocol):
    """What is used of a `classad2.ClassAd`."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str) -> Any: ...

    def lookup(self, name: str) -> Any:
        """The expression itself, not evaluated."""


def plain(ad: ClassAdLike, names: Iterable[str] | None = None) -> dict[str, Value]:
    """The ad, or what is called `names` in it, with plain numbers, strings and booleans.

    Other expressions become their text, UNDEFINED becomes None.
    """
    return {name: _plain_value(ad[name], ad.lookup(name)) for name in (ad if names is None else names)}


def _plain_value(value: Any, tree: Any) -> Value:
    # Not isinstance: the bindings' UNDEFINED and ERROR are ints too.
    if type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return cast("Value", value)
    text = repr(tree)  # str() would break lists and nested ads over several lines
    return None if text == "undefined" else text
