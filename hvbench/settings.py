"""Tables of settings: attrs classes that know their TOML keys, units, legal values, defaults and sources.

`setting` makes a field, `read_table` fills a class from a TOML table and collects every error with its path, and
`describe_settings` says what each setting is. A class with a field `kind` may hold `KINDS`: defaults that depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import attrs
from attrs import define, field
from cattrs import Converter
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override
from cattrs.v import transform_error

from hvbench import units
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

OWN = "choice of this project"
"""The source of a default that nobody measured."""

Kinds = Mapping[str, Mapping[str, tuple[Any, str]]]
"""For each kind, the defaults of attributes that differ from the class's own, with their sources."""

_REQUIRED = attrs.NOTHING
T = TypeVar("T")


def setting(
    doc: str,
    *,
    default: Any = _REQUIRED,
    factory: Callable[[], Any] | None = None,
    key: str = "",
    unit: str = "",
    source: str = "",
    legal: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    words: Mapping[str, Any] | None = None,
) -> Any:
    """An attrs field that knows its TOML key, unit, legal values and where its default comes from.

    `low` and `high` are the least and the greatest legal number; `words` are texts with a meaning of their own
    (`random`).
    """
    metadata: dict[str, Any] = {"doc": doc, "key": key, "unit": unit, "source": source, "legal": legal, "low": low}
    metadata["high"] = high
    metadata["words"] = words or {}
    if factory is not None:
        return field(factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def kinds_of(cls: type) -> Kinds:
    """The defaults that a class's kinds set; empty where it has none."""
    kinds: Kinds = getattr(cls, "KINDS", {})
    return kinds


# --- reading -------------------------------------------------------------------------------------------


def read_table(value: Any, cls: type[T], where: str, errors: list[str]) -> T | None:
    """A TOML table as `cls`; None where it is wrong, its errors appended with their paths under `where`."""
    try:
        return _converter().structure(value, cls)
    except UserError as error:
        errors.append(f"{where}: {error}")
    except BaseValidationError as error:
        for line in transform_error(error, format_exception=_explain):
            message, _, path = line.rpartition(" @ ")
            errors.append(f"{where}{_with_keys(path.removeprefix('$'), cls)}: {message}")
    return None


@lru_cache(maxsize=1)
def _converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _table_hook(converter, cls))
    return converter


def _table_hook(converter: Converter, cls: type[T]) -> Callable[[Any, Any], T]:
    """How a table is read: keys without unit suffixes, quantities with units, extra keys refused."""
    attrs.resolve_types(cls)  # type: ignore[type-var]
    overrides: dict[str, Any] = {}
    for attribute in attrs.fields(cls):  # type: ignore[arg-type]
        hook = _value_hook(attribute)
        options: dict[str, Any] = {"rename": key_of(attribute)}
        if hook is not None:
            options["struct_hook"] = hook
        overrides[attribute.name] = override(**options)
    structure = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **overrides
    )

    def read(value: Any, _: Any) -> T:
        if not isinstance(value, dict):
            raise UserError(f"{value!r} is not a table")
        return structure(_with_kind_defaults(value, cls), cls)

    return read


def _with_kind_defaults(table: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """A table with the defaults of its kind filled in."""
    kinds = kinds_of(cls)
    if not kinds:
        return dict(table)
    attributes = attrs.fields_dict(cls)
    kind = table.get("kind", attributes["kind"].default)
    preset = kinds.get(kind, {}) if isinstance(kind, str) else {}
    return {
        **{key_of(attributes[name]): _written(value, attributes[name]) for name, (value, _) in preset.items()},
        **table,
    }


def _written(value: Any, attribute: attrs.Attribute[Any]) -> Any:
    """A default as it would stand in the file: with its unit."""
    unit = attribute.metadata["unit"]
    return units.format_value(value, unit) if unit and isinstance(value, int | float) else value


def _value_hook(attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any] | None:
    """How one scalar setting is read; None leaves tables to cattrs."""
    unit, legal, low, high, words = (attribute.metadata[name] for name in ("unit", "legal", "low", "high", "words"))
    kind = attribute.type

    def read(value: Any, _: Any) -> Any:
        result: Any
        if isinstance(value, str) and value in words:
            return words[value]
        if kind is int:
            if not unit and (isinstance(value, bool) or not isinstance(value, int)):
                raise UserError(f"{value!r} is not a whole number")
            result = units.parse_written(value, unit)
        elif kind is float:
            result = units.parse_written(value, unit, whole=False)
        elif kind is bool:
            if not isinstance(value, bool):
                raise UserError(f"{value!r} is neither true nor false")
            result = value
        elif kind is str:
            if not isinstance(value, str):
                raise UserError(f"{value!r} is not a text")
            result = value
        elif kind in (tuple[int, ...], tuple[str, ...]):
            element = int if kind == tuple[int, ...] else str
            if not isinstance(value, list) or any(type(item) is not element for item in value):
                raise UserError(f"{value!r} is not a list of {'whole numbers' if element is int else 'texts'}")
            result = tuple(value)
        else:
            raise TypeError(f"no reader for {attribute.name} of type {kind}")
        if legal and result not in legal:
            raise UserError(f"{value!r} is unknown; legal: {', '.join(legal)}")
        if low is not None and result < low:
            raise UserError(f"{value!r} is below the least legal value, {units.format_value(low, unit or 'count')}")
        if high is not None and result > high:
            raise UserError(f"{value!r} is above the greatest legal value, {units.format_value(high, unit or 'count')}")
        return result

    return None if isinstance(kind, type) and attrs.has(kind) else read


def key_of(attribute: attrs.Attribute[Any]) -> str:
    """The TOML key of a field: its name without the unit."""
    return attribute.metadata["key"] or attribute.name


def _explain(error: BaseException, _: type | None) -> str:
    """One error of cattrs in words."""
    if isinstance(error, ForbiddenExtraKeysError):
        return unknown_keys(error.extra_fields, [key_of(attribute) for attribute in attrs.fields(error.cl)])
    if isinstance(error, KeyError):
        return "required, but missing"
    return str(error) or type(error).__name__


def unknown_keys(found: Iterable[str], legal: Iterable[str]) -> str:
    """What is said of keys that a table does not have: the nearest one of each, and all that are legal."""
    legal = sorted(legal)
    said = [f"{key}{did_you_mean(key, legal)}".rstrip("?") for key in sorted(found)]
    return f"unknown: {', '.join(said)}; legal here: {', '.join(legal)}"


def _with_keys(path: str, cls: type) -> str:
    """A path of attribute names as the keys that stand in the file: `.memory_pages` as `.memory`."""
    keys = dict(_keys(cls))
    return re.sub(r"\w+", lambda match: keys.get(match.group(), match.group()), path)


def _keys(cls: type) -> Iterator[tuple[str, str]]:
    for attribute in attrs.fields(cls):
        yield attribute.name, key_of(attribute)
        if isinstance(attribute.type, type) and attrs.has(attribute.type):
            yield from _keys(attribute.type)


# --- describing ----------------------------------------------------------------------------------------


@define(frozen=True)
class SettingInfo:
    """One setting of a workload as people see it."""

    path: str
    value: str
    unit: str
    is_default: bool
    doc: str
    source: str


def describe_settings(record: Any, prefix: str = "") -> Iterator[SettingInfo]:
    """Every setting of a table (`Host`, `VmGroup`, `Settings`): value, unit, meaning, source."""
    kind_defaults = kinds_of(type(record)).get(getattr(record, "kind", ""), {})
    for attribute in attrs.fields(type(record)):
        value = getattr(record, attribute.name)
        path = prefix + key_of(attribute)
        if attrs.has(type(value)):
            yield from describe_settings(value, f"{path}.")
            continue
        default, source = attribute.default, attribute.metadata["source"]
        if attribute.name in kind_defaults:
            default, source = kind_defaults[attribute.name]
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        unit = attribute.metadata["unit"]
        is_default = default is not attrs.NOTHING and value == default
        word = next((word for word, meant in attribute.metadata["words"].items() if meant == value), None)
        if word is not None:
            text = word
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, (int, float)):
            text = units.format_value(value, unit or "count")
        elif isinstance(value, tuple):
            text = "[" + ", ".join(str(item) for item in value) + "]"
        else:
            text = str(value)
        yield SettingInfo(path, text, unit, is_default, attribute.metadata["doc"], source if is_default else "")
