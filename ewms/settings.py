"""Environment variables → frozen attrs classes, every bad value reported at once.

A settings class is a frozen attrs class whose fields are made by `variable`. `load` reads it from a mapping (a
service passes `os.environ` once, at its edge; nothing else looks there) and either returns the object or raises one
`SettingsError` that lists every problem as `NAME: what is wrong, what is allowed`. The parsing is cattrs's; only the
text forms of an environment variable (booleans, lists, JSON objects, secrets) are ours.
"""

import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
import structlog

from ewms.groups import leaves
from ewms.secret import Secret

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_ENV: Final = "ewms.env"
_MISSING: Final = object()


class SettingsError(Exception):
    """Some settings are missing or wrong; `problems` has one clear line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@attrs.frozen
class Deprecated:
    """A name that a setting had: it is read where the new one is not set, and whoever uses it is warned."""

    name: str
    removed_in: str
    """The release that will not know it any more, such as `2.0`."""


@attrs.frozen
class Variable:
    """What the reference documentation and the loader know of one setting."""

    name: str
    help: str
    aliases: tuple[str, ...] = ()
    """Other names, for good."""
    deprecated: tuple[Deprecated, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which it is read, the first one that is set counts."""
        return (self.name, *self.aliases, *(old.name for old in self.deprecated))


@attrs.frozen
class AtLeast:
    """For `Annotated[int, AtLeast(1)]`: the smallest value allowed."""

    minimum: float


@attrs.frozen
class TextForm:
    """For `Annotated[tuple[str, ...], TextForm(parse)]`: a text form of its own; `parse` raises `ValueError`."""

    parse: Callable[[str], Any]


def variable(
    name: str,
    help: str,  # noqa: A002
    *,
    default: Any = _MISSING,
    aliases: tuple[str, ...] = (),
    deprecated: tuple[Deprecated, ...] = (),
) -> Any:
    """A field of a settings class, read from the variable `name`, or, when that is not set, from one of the others."""
    metadata = {_ENV: Variable(name, help, aliases, deprecated)}
    if default is _MISSING:
        return attrs.field(metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def variables(cls: type) -> list[tuple["attrs.Attribute[Any]", Variable]]:
    """Each field of a settings class with its variable, in the order of the class."""
    return [(field, field.metadata[_ENV]) for field in attrs.fields(cls) if _ENV in field.metadata]


def warn_of_deprecated(cls: type, environ: Mapping[str, str]) -> None:
    """Log a warning for each deprecated name in `environ`; for a service, once its logging is set up."""
    for old, var in deprecated_in_use(cls, environ):
        log.warning("a setting has another name now", name=old.name, use=var.name, removed_in=old.removed_in)


def deprecated_in_use(cls: type, environ: Mapping[str, str]) -> list[tuple[Deprecated, Variable]]:
    """The deprecated names that `environ` has, each with the variable to use in its place."""
    return [(old, var) for _, var in variables(cls) for old in var.deprecated if old.name in environ]


def names_without_effect(cls: type, environ: Mapping[str, str], prefixes: tuple[str, ...]) -> list[str]:
    """A line for each variable that begins like a setting of `cls` and is none: a misspelt one is lost else."""
    known = {name for _, var in variables(cls) for name in var.names}
    return [_unknown(name, known) for name in sorted(environ) if name.startswith(prefixes) and name not in known]


def _unknown(name: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"{name}: is no setting, and has no effect{f'; is {near[0]} meant?' if near else ''}"


def load(cls: type[T], environ: Mapping[str, str]) -> T:
    """Read `cls` from `environ`; raise `SettingsError` with every problem at once.

    A variable that is set to the empty string counts as not set, except for a plain string.
    """
    attrs.resolve_types(cls, include_extras=True)  # type: ignore[type-var]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field, var in variables(cls):
        name, text = _find(var, environ)
        if text is None or (text == "" and field.type is not str):
            if field.default is attrs.NOTHING:
                problems.append(f"{var.name}: is required but not set ({var.help})")
            continue
        try:
            values[field.name] = _converter.structure(text, cast("type[Any]", field.type))
        except Exception as error:  # noqa: BLE001  cattrs wraps what a hook raises
            shown = "the value (not shown)" if _may_hold_secret(field.type) else repr(text)
            problems.append(f"{name}: {shown} is not allowed: {next(leaves(error))}")
    problems.extend(_between(cls, values))
    if problems:
        raise SettingsError(problems)
    try:
        return cls(**values)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError([str(error)]) from error


def _between(cls: type, values: Mapping[str, Any]) -> Iterable[str]:
    """What a class's own `problems_between(values)`, where it has one, finds wrong with several values together.

    It gets the values that are right by themselves, defaults included: all problems are told at once.
    """
    rules: Callable[[Mapping[str, Any]], Iterable[str]] | None = getattr(cls, "problems_between", None)
    if rules is None:
        return ()
    defaults: dict[str, Any] = {
        field.name: field.default for field, _ in variables(cls) if field.default is not attrs.NOTHING
    }
    return rules({**defaults, **values})


def _find(var: Variable, environ: Mapping[str, str]) -> tuple[str, str | None]:
    for name in var.names:
        if name in environ:
            return name, environ[name].strip() if environ[name].isspace() else environ[name]
    return var.name, None


def _may_hold_secret(kind: Any) -> bool:
    # A JSON object is an environment of somebody's task: its values may be passwords.
    return kind is Secret or get_origin(kind) is dict or any(_may_hold_secret(arg) for arg in get_args(kind))


# --- the text forms ---

_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def parse_bool(text: str) -> bool:
    """True or false from true/false, yes/no, on/off, 1/0, t/f, y/n in any case."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("use true or false (yes/no, on/off, 1/0, t/f, y/n work too)")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("use a whole number") from None


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("use a number") from None
    if not math.isfinite(number):
        raise ValueError("use a finite number")
    return number


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"use a JSON object ({error})") from None
    if not isinstance(value, dict):
        raise ValueError('use a JSON object such as {"NAME": "value"}')  # noqa: TRY004
    return value


_SIMPLE: Final[Mapping[Any, Callable[[str], Any]]] = {
    bool: parse_bool,
    int: _int,
    float: _float,
    str: str,
    Path: Path,
    Secret: Secret,
}


def _structure_optional(text: str, kind: Any) -> Any:
    (inner,) = (arg for arg in get_args(kind) if arg is not type(None))
    return _converter.structure(text, inner)


def _structure_literal(text: str, kind: Any) -> str:
    if text.lower() in (allowed := get_args(kind)):
        return text.lower()
    raise ValueError(f"use one of: {', '.join(allowed)}")


def _structure_annotated(text: str, kind: Any) -> Any:
    inner, *notes = get_args(kind)
    forms = [note.parse for note in notes if isinstance(note, TextForm)]
    value = forms[0](text) if forms else _converter.structure(text, inner)
    for note in notes:
        if isinstance(note, AtLeast) and value is not None and value < note.minimum:
            raise ValueError(f"use a number of at least {note.minimum:g}")
    return value


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (typing.Union, types.UnionType) and type(None) in get_args(kind)


def _is(*wanted: Any) -> Callable[[Any], bool]:
    return lambda kind: any(kind is each or get_origin(kind) is each for each in wanted)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    hook = converter.register_structure_hook_func
    for kind, parse in _SIMPLE.items():
        # Not a predicate hook: cattrs's own hooks for int and bool would come first.
        converter.register_structure_hook(kind, lambda text, _, parse=parse: parse(text))  # type: ignore[misc]
    hook(_is(dict), lambda text, _: _json_object(text))
    hook(_is_optional, _structure_optional)
    hook(_is(Literal), _structure_literal)
    hook(_is(Annotated), _structure_annotated)
    # A tuple of strings: separated by spaces or commas.
    hook(_is(tuple), lambda text, _: tuple(text.replace(",", " ").split()))
    return converter


_converter: Final = _make_converter()
