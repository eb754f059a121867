"""The subset of MongoDB's filters and projections that users of the WMS's queries need. Pure."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final


class BadFilter(ValueError):
    """The filter uses something that is not in the subset, or wrongly."""


def matches(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether the document fulfils every clause of the filter."""
    return all(_fulfils(document, key, condition) for key, condition in query.items())


def project(document: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The document with the (dotted) paths asked for; with none, all of it."""
    if not paths:
        return dict(document)
    projected: dict[str, Any] = {}
    for path in paths:
        *holders, last = path.split(".")
        source: Any = document
        target = projected
        for holder in holders:
            source = source.get(holder) if isinstance(source, Mapping) else None
            target = target.setdefault(holder, {})
        if isinstance(source, Mapping) and last in source:
            target[last] = source[last]
    return projected


def _fulfils(document: Mapping[str, Any], key: str, condition: Any) -> bool:
    if key.startswith("$"):
        if key not in _LOGICAL:
            raise BadFilter(f"unknown operator {key}; known here: {', '.join(_LOGICAL)}")
        if not isinstance(condition, list) or not condition:
            raise BadFilter(f"{key} needs a non-empty list of filters")
        return _LOGICAL[key](_must_be_filter(key, each) and matches(document, each) for each in condition)
    return _meets(list(_values(document, key.split("."))), condition)


_LOGICAL: Final[Mapping[str, Callable[[Iterator[bool]], bool]]] = {
    "$and": all,
    "$or": any,
    "$nor": lambda results: not any(results),
}


def _must_be_filter(key: str, value: Any) -> bool:
    if not isinstance(value, Mapping):
        raise BadFilter(f"{key} needs a filter object")
    return True


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Every value that a path leads to, through lists too; a list at its end also stands for its elements."""
    if not path:
        yield value
        if isinstance(value, list):
            yield from value
    elif isinstance(value, Mapping):
        if path[0] in value:
            yield from _values(value[path[0]], path[1:])
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, Mapping):
                yield from _values(each, path)


def _meets(found: list[Any], condition: Any) -> bool:
    if not isinstance(condition, Mapping) or not any(key.startswith("$") for key in condition):
        return _has(found, condition)
    if unknown := sorted(set(condition) - set(_OPERATORS)):
        raise BadFilter(f"unknown operator {unknown[0]}; known here: {', '.join(_OPERATORS)}")
    return all(_OPERATORS[key](found, argument) for key, argument in condition.items())


def _has(found: list[Any], wanted: Any) -> bool:
    # For MongoDB null also means "not there"; True is not 1.
    if wanted is None and not found:
        return True
    return any(each == wanted and isinstance(each, bool) == isinstance(wanted, bool) for each in found)


def _has_any(found: list[Any], wanted: Any) -> bool:
    if not isinstance(wanted, list):
        raise BadFilter("$in and $nin need a list")
    return any(_has(found, each) for each in wanted)


def _compares(compare: Callable[[Any, Any], bool]) -> Callable[[list[Any], Any], bool]:
    def check(found: list[Any], wanted: Any) -> bool:
        return any(_is_same_kind(each, wanted) and compare(each, wanted) for each in found)

    return check


def _is_same_kind(one: Any, other: Any) -> bool:
    return any(_is_of(one, kinds) and _is_of(other, kinds) for kinds in ((int, float), (str,)))


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _not(found: list[Any], condition: Any) -> bool:
    return _must_be_filter("$not", condition) and not _meets(found, condition)


def _elem_match(found: list[Any], query: Any) -> bool:
    _must_be_filter("$elemMatch", query)
    return any(isinstance(each, Mapping) and matches(each, query) for each in found)


_OPERATORS: Final[Mapping[str, Callable[[list[Any], Any], bool]]] = {
    "$eq": _has,
    "$ne": lambda found, wanted: not _has(found, wanted),
    "$in": _has_any,
    "$nin": lambda found, wanted: not _has_any(found, wanted),
    "$exists": lambda found, wanted: bool(found) == bool(wanted),
    "$gt": _compares(operator.gt),
    "$gte": _compares(operator.ge),
    "$lt": _compares(operator.lt),
    "$lte": _compares(operator.le),
    "$not": _not,
    "$elemMatch": _elem_match,
}
