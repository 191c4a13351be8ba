"""Where files brought in for a command may land, and from where they may come: what language and coordinator share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from wire import bounds

SCHEMES: Final = ("https", "http")
SECURE: Final = "https"


def refuse_path(path: str) -> str | None:
    """Why a file can't land at this path below a work directory, as the end of a sentence; None: it can."""
    parts = path.split("/")
    if not path or path.startswith("/"):
        return "it is relative to the command's work directory"
    if any(part in ("", ".", "..") for part in parts):
        return "it is written plainly, without `..`, `.` or empty parts"
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 or 0xD800 <= ord(letter) < 0xE000 for letter in path):
        return "it holds a character that can't be printed"
    if len(parts) > bounds.MAX_FILE_DEPTH:
        return f"it goes at most {bounds.MAX_FILE_DEPTH} directories deep"
    if max(len(part.encode()) for part in parts) > bounds.MAX_FILE_NAME:
        return f"a name has at most {bounds.MAX_FILE_NAME} bytes"
    if len(path.encode()) > bounds.MAX_FILE_PATH:
        return f"it has at most {bounds.MAX_FILE_PATH} bytes"
    return None


def clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """The first path that lands where an earlier one did, above or below it, and that earlier one; None: none does."""
    files: set[str] = set()
    above: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        ways = ["/".join(parts[:end]) for end in range(1, len(parts))]
        if path in files:
            return path, path
        if path in above:
            return path, above[path]
        if (under := next((way for way in ways if way in files), None)) is not None:
            return path, under
        files.add(path)
        for way in ways:
            above.setdefault(way, path)
    return None


def scheme_of(url: Any) -> str | None:
    """The scheme of a URL (an expression of `wire.template`) in small letters, as far as it is known before it runs;
    empty: it has none."""
    literal = url if isinstance(url, str) else url[1] if isinstance(url, list) and url[:1] == ["text"] else None
    if not isinstance(literal, str):
        return None
    scheme, colon, _ = literal.partition("://")
    return scheme.lower() if colon else ("" if isinstance(url, str) else None)
