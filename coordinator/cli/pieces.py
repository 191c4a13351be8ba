"""Reading an output or a file piece by piece, from its beginning or only its last lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from coordinator.cli.failure import failed

PIECE: Final = 262_144
_FIRST_LOOK_BACK: Final = 16_384
MAX_LOOK_BACK: Final = 64 * 1024 * 1024
"""Lines that begin before that are not looked for: what a node says of a file's size is its word only."""

Piece = dict[str, Any]
Read = Callable[[int, int], Piece]
"""`(offset, limit)` → `{"content": bytes, "size": int, "end": bool}`."""


def whole(read: Read, offset: int = 0) -> Iterator[bytes]:
    """Everything from an offset on."""
    while True:
        piece = read(offset, PIECE)
        content = content_of(piece)
        if content:
            yield content
        if piece.get("end") or not content:
            return
        offset += int(piece.get("skipped", 0)) + len(content)


def last_lines(read: Read, count: int) -> list[bytes]:
    """The last `count` lines, in pieces, read backwards from the end until there are enough, or the bound is met."""
    if count == 0:
        return []
    end = int(read(0, 1).get("size", 0))
    found: list[bytes] = []
    wanted = count  # the end of a line before the ones wanted
    back = _FIRST_LOOK_BACK
    looked = 0
    while end > 0 and looked < MAX_LOOK_BACK:
        start = max(0, end - back)
        content = b"".join(_between(read, start, end))
        found.insert(0, content)
        looked += len(content)
        ends = content.count(b"\n") - (1 if len(found) == 1 and content.endswith(b"\n") else 0)
        if ends >= wanted:
            found[0] = _after_line(content, wanted, last=len(found) == 1)
            break
        wanted -= ends
        end, back = start, PIECE
    return found


def _between(read: Read, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = read(start, end - start)
        skipped = int(piece.get("skipped", 0))
        content = content_of(piece)[: max(0, end - start - skipped)]
        if not content:
            return
        yield content
        start += skipped + len(content)


def _after_line(content: bytes, count: int, *, last: bool) -> bytes:
    """What follows the `count`th line's end from the end; of the last piece the very last one ends what is wanted."""
    at = len(content) - 1 if last and content.endswith(b"\n") else len(content)
    for _ in range(count):
        at = content.rfind(b"\n", 0, at)
    return content[at + 1 :]


def content_of(piece: Piece) -> bytes:
    """The bytes of a piece. Raises Failure."""
    content = piece.get("content", b"")
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    if not isinstance(content, bytes):
        raise failed("the coordinator answered with something that is no file content")
    return content
