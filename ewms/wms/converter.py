"""JSON values → models, strictly: a value of another type is an error, never silently made to fit.

cattrs alone would turn `"4"` into 4, 4 into `"4"` and `"abc"` into three strings. Unknown keys are ignored here; the
stand-in, whose duty is to be as strict as the WMS, makes its own converter that forbids them.
"""

import math
import types
from collections import abc
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from ewms.secret import Secret
from ewms.wms.errors import WMSMalformed
from ewms.wms.models import Phase

T = TypeVar("T")


class WrongType(ValueError):
    """A JSON value has another type than the contract says; the text names types, never the value."""

    def __init__(self, wanted: str, value: Any) -> None:
        super().__init__(f"expected {wanted}, got {_JSON_NAMES.get(type(value), type(value).__name__)}")


_JSON_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    float: "a number with a fraction",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def read(cls: type[T], value: Any, what: str) -> T:
    """Make a `cls` of a JSON value; `what` names it in errors.

    Raises:
        WMSMalformed: with one readable `… @ $.path` line for each problem.
    """
    try:
        return _converter.structure(value, cls)
    except Exception as error:  # noqa: BLE001  cattrs raises groups and whatever a hook raises
        raise WMSMalformed(what, problems(error), taskforce_uuid=find_taskforce_uuid(value)) from None


def problems(error: Exception) -> list[str]:
    """What cattrs found, one line each, with the path of each value and never a value."""
    return cattrs.transform_error(error, format_exception=_describe)


def find_taskforce_uuid(value: Any) -> str | None:
    """The taskforce that a start order or a taskforce object is about, if that much can be read."""
    if not isinstance(value, dict):
        return None
    for holder in (value.get("taskforce"), value):
        if isinstance(holder, dict) and isinstance(uuid := holder.get("taskforce_uuid"), str):
            return uuid or None
    return None


def make_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    """A converter with strict types; whether unknown keys are ignored or an error is the caller's choice."""
    converter = cattrs.Converter(forbid_extra_keys=forbid_extra_keys)
    for kind, hook in _SCALARS.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook(str | int, _structure_str_or_int)
    converter.register_structure_hook(
        str | int | tuple[str, ...],
        lambda value, _: (
            converter.structure(value, tuple[str, ...])
            if isinstance(value, list)
            else _structure_str_or_int(value, None, "a string, a whole number or a list of strings")
        ),
    )

    @converter.register_structure_hook_factory(attrs.has)
    def _(cls: type[Any]) -> _Hook:
        inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=forbid_extra_keys)
        return lambda value, kind: inner(_must(dict, "an object", value), kind)

    # cattrs would take any iterable for a tuple and any mapping for a Mapping.
    @converter.register_structure_hook_factory(_is(tuple))
    def _(kind: Any) -> _Hook:
        as_list = types.GenericAlias(list, get_args(kind)[:1])
        inner = converter.get_structure_hook(as_list)
        return lambda value, _: tuple(inner(_must(list, "a list", value), as_list))

    @converter.register_structure_hook_factory(_is(abc.Mapping))
    def _(kind: Any) -> _Hook:
        as_dict = types.GenericAlias(dict, get_args(kind))
        inner = converter.get_structure_hook(as_dict)
        return lambda value, _: inner(_must(dict, "an object", value), as_dict)

    return converter


_Hook = Callable[[Any, Any], Any]


def _is(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is origin


def _must(json_type: type[T], wanted: str, value: Any) -> T:
    if type(value) is not json_type:
        raise WrongType(wanted, value)
    return value


def _structure_float(value: Any, _: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WrongType("a finite number", value)
    return float(value)


def _structure_str_or_int(value: Any, _: Any, wanted: str = "a string or a whole number") -> str | int:
    if type(value) not in (str, int):
        raise WrongType(wanted, value)
    return value  # type: ignore[no-any-return]


_SCALARS: Final[Mapping[Any, _Hook]] = {
    str: lambda value, _: _must(str, "a string", value),
    int: lambda value, _: _must(int, "a whole number", value),
    bool: lambda value, _: _must(bool, "true or false", value),
    float: _structure_float,
    Phase: lambda value, _: Phase(_must(str, "a string", value)),
    Secret: lambda value, _: Secret(_must(str, "a string", value)),
}


def _describe(error: BaseException, kind: type | None) -> str:
    match error:
        case KeyError():
            return "is missing"
        case WrongType():
            return str(error)
        case ForbiddenExtraKeysError():
            return f"unknown keys: {', '.join(sorted(error.extra_fields))}"
        case ValueError() if isinstance(kind, type) and issubclass(kind, StrEnum):
            return f"expected one of {', '.join(kind)}"
        case _:
            return f"is not allowed ({type(error).__name__})"


_converter: Final = make_converter(forbid_extra_keys=False)
