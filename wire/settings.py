"""A daemon's configuration: one TOML file of a known shape, and every mistake in it a sentence for who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from wire.near import did_you_mean

MAX_BYTES: Final = 1 << 20
_PLACED: Final = re.compile(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_ANY: Final = "*"
"""Stands for a name that whoever writes the file chooses."""
_WORDS: Final = {
    "`object`": "a table", "`array`": "a list", "`str`": "a text in quotes", "`int`": "a whole number",
    "`float`": "a number", "`bool`": "true or false", "invalid enum value": "no such choice:", "got": "found",
}  # fmt: skip
"""What the parser of values calls them, as TOML does."""
_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class ConfigError(Exception):
    """The configuration can't be used. The text is a sentence without its stop, for the administrator."""


def read_settings(path: Path, shape: type[_Shape]) -> _Shape:
    """What stands in the file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is longer than {MAX_BYTES} bytes: that is no configuration")
        return msgspec.toml.decode(content, type=shape)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_told(str(error), shape)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no TOML: it is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {_begun_small(str(error))}") from None


def _told(complaint: str, shape: type[msgspec.Struct]) -> str:
    """What does not fit the shape, and where."""
    placed = _PLACED.fullmatch(complaint)
    assert placed is not None, "it takes any text"
    what, way = placed[1], [part for part in (placed[2] or "").replace("[...]", f".{_ANY}").split(".") if part]
    if (unknown := _UNKNOWN.fullmatch(what)) is not None:
        meant = did_you_mean(unknown[1], _names(shape, way))
        table = f"[{'.'.join(way)}]" if way else "it"
        return f"{table} has no setting `{unknown[1]}`{f': {meant}' if meant else ''}"
    what = _begun_small(what)
    for word, plain in _WORDS.items():
        what = what.replace(word, plain)
    *tables, name = way or [""]
    return f"[{'.'.join(tables)}] {name}: {what}" if tables else f"{name}: {what}" if name else what


def _names(shape: type[msgspec.Struct], way: list[str]) -> list[str]:
    """What may stand there."""
    found = shape
    for part in way:
        kinds = {field.encode_name: field.type for field in msgspec.structs.fields(found)}
        found = next(_structs(kinds.get(part)), found)
    return [field.encode_name for field in msgspec.structs.fields(found)]


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The shapes in a type, as in `dict[str, Policy]`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in get_args(kind):
        yield from _structs(part)


def _begun_small(text: str) -> str:
    return text[:1].lower() + text[1:]
