"""What a command reads: `.batch` files and the values of params."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from coordinator.cli.failure import misused, reason_of

MAX_SOURCE: Final = 16 * 1024 * 1024


@dataclass
class Source:
    """A file as it was read. `path` is None for stdin."""

    name: str
    text: str
    path: str | None


def read_source(path: str) -> Source:
    """The text of a file; `-` is stdin. A file that can't be read is a wrong command line."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MAX_SOURCE + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(MAX_SOURCE + 1)
    except OSError as error:
        raise misused(f"{path} can't be read: {reason_of(error)}") from None
    if len(content) > MAX_SOURCE:
        raise misused(f"{path} is larger than {MAX_SOURCE // 2**20} MiB; a sweep over a range needs only one line")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise misused(f"{path} is no UTF-8 text (line {line})", "save it as UTF-8") from None
    return (
        Source("<stdin>", text, None) if path == "-" else Source(path.encode("utf-8", "replace").decode(), text, path)
    )


def params_of(pairs: tuple[str, ...], path: str | None) -> dict[str, str]:
    """`--params FILE` first, then each `--param k=v` over it."""
    params = _from_file(path) if path is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise misused(f"--param {pair!r} is no NAME=VALUE")
        params[name.strip()] = value
    return params


def _from_file(path: str) -> dict[str, str]:
    """A JSON object, or lines `name = value` (empty ones and those with # are left out)."""
    text = read_source(path).text
    if text.lstrip().startswith("{"):
        return _from_json(path, text)
    params = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals or not name.strip():
                raise misused(f"{path}:{number}: {line[:60]!r} is no NAME = VALUE")
            params[name.strip()] = _unquoted(value.strip())
    return params


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _from_json(path: str, text: str) -> dict[str, str]:
    import json

    try:
        document = json.loads(text)
    except ValueError as error:
        raise misused(f"{path} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise misused(f"{path} is no JSON object of names and values")
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in document.items()}
