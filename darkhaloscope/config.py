"""Typed, frozen config out of nested dicts: unknown keys and wrong values are refused with the nearest known one."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from darkhaloscope.errors import Explained


class ConfigError(Explained, ValueError):
    """A config that cannot be used; the message names the file, the key and what is known."""


def build(cls: Any, raw: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """Build a dataclass, and those nested in it, from dicts.

    Args:
        cls: frozen dataclass with annotated fields.
        raw: key -> value, tables as dicts, tuples as lists.
        where: file or place, for messages.
        prefix: dotted path of `raw` in it, with a trailing dot.

    Raises:
        ConfigError: an unknown key (the nearest is named), a missing one, a value of the wrong type or outside its
            choices.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix + near[0]!r}?" if near else f"; known keys: {sorted(fields)}"
            raise ConfigError(f"{where}: unknown key {prefix + key!r}{hint}")
    missing = [
        prefix + f.name
        for f in fields.values()
        if f.name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing keys {missing}")
    return cls(**{k: _value(hints[k], v, where, prefix + k) for k, v in raw.items()})


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {key} is {value!r}; expected a table [{key}]")
        return build(hint, value, where, key + ".")
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            raise ConfigError(
                f"{where}: {key} = {value!r}; expected one of {list(choices)}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return value
    if origin in (tuple, types.GenericAlias):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: {key} = {value!r}; expected a list")
        return tuple(_value(typing.get_args(hint)[0], v, where, key) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: {key} = {value!r} is {type(value).__name__}; expected {hint.__name__}")
    return value


def positive(text: str) -> int:
    """Parse an argument of a command line that is a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return number
