"""Reading an output or a file piece by piece, from its beginning or only its last lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from coordinator.cli.failure import failed

PIECE: Final = 262_144
_FIRST_LOOK_BACK: Final = 16_384

Piece = dict[str, Any]
Read = Callable[[int, int], Piece]
"""`(offset, limit)` → `{"content": bytes, "size": int, "end": bool}`."""


def whole(read: Read, offset: int = 0) -> Iterator[bytes]:
    """Everything from an offset on."""
    while True:
        piece = read(offset, PIECE)
        content = _content(piece)
        if content:
            yield content
        if piece.get("end") or not content:
            return
        offset += len(content)


def last_lines(read: Read, count: int) -> bytes:
    """The last `count` lines, looking back further and further until there are enough."""
    if count == 0:
        return b""
    size = int(read(0, 1).get("size", 0))
    back = _FIRST_LOOK_BACK
    while True:
        start = max(0, size - back)
        tail = b"".join(whole(read, start))
        lines = tail.splitlines(keepends=True)
        if start == 0 or len(lines) > count:
            return b"".join(lines[-count:])
        back *= 8


def _content(piece: Piece) -> bytes:
    content = piece.get("content", b"")
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    if not isinstance(content, bytes):
        raise failed("the coordinator answered with something that is no file content")
    return content
