"""Nested dictionaries into checked dataclasses: the one way by which YAML files and ``--set`` become configurations.

A setting is named by its dotted path, such as ``training.lr``. Types and unknown names are checked by pydantic on the
standard library's dataclasses; its errors become one line that quotes the value and says what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

CHECKED = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
"""For ``__pydantic_config__`` of an outermost dataclass; the dataclasses inside it inherit it."""

T = TypeVar("T")

_WANTED = {
    "bool": "true or false",
    "dataclass": "a group of settings",
    "dict": "a group of settings",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "string": "a string",
    "tuple": "a list",
}


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass ``cls`` from nested dictionaries.

    Raises:
        ValueError: an unknown or missing setting, or a value of the wrong type or outside what its dataclass allows.
    """
    try:
        built = _checker(cls).validate_python(dict(values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_one_line(cls, error)) from None
    checked = flatten(asdict(built))
    for name, value in flatten(values).items():
        if isinstance(value, bool) and type(checked.get(name)) in (int, float):  # pydantic reads true as 1
            wanted = _WANTED[type(checked[name]).__name__]
            raise ValueError(f"{name} is {str(value).lower()}; it must be {wanted}")
    return built


@cache
def _checker(cls: type[T]) -> TypeAdapter[T]:  # which takes longer to make than a configuration to check
    return TypeAdapter(cls)


def parse_assignment(text: str) -> dict[str, Any]:
    """``"training.lr=0.1"`` -> ``{"training.lr": 0.1}``; the value is read as YAML, and checked by :func:`build`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is no setting; write it as name=value, such as training.lr=0.0001")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{name} is {value!r}, which is not YAML") from None
    return flatten({name.strip(): parsed})


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries into one; a later layer wins, setting by setting. Names may be dotted."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in flatten(layer).items():
            *groups, last = name.split(".")
            target = merged
            for group in groups:
                if not isinstance(target.get(group), dict):
                    target[group] = {}
                target = target[group]
            target[last] = value
    return merged


def _one_line(cls: type, error: ValidationError) -> str:
    """The first of pydantic's errors as a sentence."""
    first = error.errors()[0]
    kind, value, location = first["type"], first["input"], [str(part) for part in first["loc"]]
    name = ".".join(location)
    if kind == "unexpected_keyword_argument":
        for part in location[:-1]:
            cls = get_type_hints(cls)[part]
        known = ", ".join(field.name for field in fields(cls))
        group = ".".join(location[:-1])
        return f"unknown setting {name}; " + (f"{group} has {known}" if group else f"there are {known}")
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name} is missing"
    if kind == "value_error":
        return f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"])
    wanted = _WANTED.get(kind.partition("_")[0], first["msg"].removeprefix("Input should be "))
    return f"{name} is {value!r}; it must be {wanted}"
