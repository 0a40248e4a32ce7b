"""Options that check themselves: a section of a config becomes the dataclass that describes it.

The dataclass says everything there is to say of an option: its type, its bounds, its default, and beside it its
meaning and unit. `read` is the only way in, so a mistyped name or a wrong value is one line that names the option.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from larvseg_jax.errors import UserError

T = TypeVar("T")

_WIDE = 100  # characters of a value shown; class lists have thousands
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120  # characters of a value in a message
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8


@dataclasses.dataclass(frozen=True)
class Least:
    """A bound: `Annotated[int, Least(1)]` is an option of 1 or more."""

    value: int


Count = Annotated[int, Least(1)]
"""A number of things of which there must be at least one."""

CountOrNone = Annotated[int, Least(0)]
"""A number of things of which there may be none; the option says what 0 means."""


def read(kind: type[T], section: Any, path: str = "", **given: Any) -> T:
    """A section of a config as its dataclass; sections inside it likewise.

    Args:
      kind: dataclass whose fields are the options.
      section: a mapping, name -> plain value; what it leaves out has its default. It may come from any file.
      path: the section's own name, for messages: "optimizer" or "streams.masks".
      given: fields that are no options of this section, with their values.

    Raises:
      UserError: an option that does not exist, is missing, has the wrong type or lies out of bounds.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    if not isinstance(section, Mapping):
        raise UserError(f"{path or 'the config'} is {_SHORT.repr(section)}: it must be a section of options")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in given}  # type: ignore[arg-type]
    for name in section:
        if name not in fields:
            raise UserError(f"there is no option {_join(path, name)}: {path or 'a config'} has {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in section:
            values[name] = _value(hints[name], section[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"the option {_join(path, name)} is missing: give it a value")
    try:
        return kind(**values, **given)
    except UserError as error:  # of options that do not go together
        raise UserError(f"{path}: {error}" if path and path not in str(error) else str(error)) from None


def defaults(*kinds: type) -> dict[str, Any]:
    """The options of some dataclasses that have a default, as plain values: what a config section starts from."""
    found: dict[str, Any] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                value = field.default
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            else:
                continue
            found[field.name] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return found


def names(kind: type) -> tuple[str, ...]:
    """The options of a dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"optimizer.name": "sgd", ...}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def plain(value: Any) -> Any:
    """Lists and tuples are the same in a config."""
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def short(value: Any) -> str:
    """A value as text; of a long list, such as one of classes, the beginning and the number."""
    text = repr(value)
    if len(text) <= _WIDE or not isinstance(value, list | tuple):
        return text
    return f"{text[:_WIDE]}... ({len(value):,} in all)"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested settings, a line an option: "optimizer.learning_rate: 0.01, was 0.001"."""
    old, new = flat(before), flat(now)
    return [
        f"{name}: {short(new[name]) if name in new else 'not given'}, "
        f"{f'was {short(old[name])}' if name in old else 'new'}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or plain(old[name]) != plain(new[name])
    ]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(hint: Any, value: Any, path: str) -> Any:
    """The value of one option as its type wants it."""
    bounds: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *bounds_found = typing.get_args(hint)
        bounds = tuple(bounds_found)
    value = _typed(hint, value, path)
    for bound in bounds:
        if isinstance(bound, Least) and value < bound.value:
            raise UserError(f"{path} is {value}: use {bound.value} or more")
    return value


def _typed(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{path} is {_SHORT.repr(value)}: use {' or '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            shown, options = _SHORT.repr(value), ", ".join(names(hint))  # type: ignore[arg-type]
            raise UserError(f"{path} is {shown}: it must be a section with {options}")
        return read(hint, value, path)  # type: ignore[arg-type]
    if origin is tuple:
        return _tuple(arguments, value, path)
    if origin in (typing.Union, types.UnionType):
        if any(argument is type(None) for argument in arguments) and value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _value(hint, value, path)
    if hint is float and type(value) is int and abs(value) < 2**1000:  # more is no float
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise UserError(f"{path} is {_SHORT.repr(value)}: it must be a {hint.__name__}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    """tuple[str, ...] of any length, tuple[int, int] of just that."""
    if not isinstance(value, list | tuple):
        raise UserError(f"{path} is {_SHORT.repr(value)}: it must be a tuple")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_value(arguments[0], item, path) for item in value)
    if len(value) != len(arguments):
        raise UserError(f"{path} is {_SHORT.repr(tuple(value))}: it must have {len(arguments)} values")
    return tuple(_value(kind, item, path) for kind, item in zip(arguments, value, strict=True))


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed, section by section; what `changes` leaves out stays."""
    found = {**settings, **changes}
    for name, section in changes.items():
        if isinstance(section, Mapping) and isinstance(settings.get(name), Mapping):
            found[name] = merged(settings[name], section)
    return found
