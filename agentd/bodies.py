"""Bodies of jobs on their way here, in pieces too large for one frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from agentd.model import decode_body, decode_start
from wire.limits import MAX_DOCUMENT
from wire.messages import BodyChunk, JobBody, OpenRound, StartNode

MAX_COMING: Final = 4
"""Bodies that may be on their way at once."""


class BodyRefused(ValueError):
    """What came is not the body that was announced; the text says why, and the session ends."""


class Bodies:
    """Invariant: of each digest so many bytes are held as came in order, from the first one on."""

    def __init__(self) -> None:
        self._coming: dict[str, bytearray] = {}

    def clear(self) -> None:
        self._coming.clear()

    def add(self, chunk: BodyChunk) -> None:
        """Raises BodyRefused."""
        if chunk.offset == 0:
            self._coming[chunk.digest] = bytearray()
        held = self._coming.get(chunk.digest)
        if held is None or chunk.offset != len(held) or len(self._coming) > MAX_COMING:
            raise BodyRefused("pieces of a job's body came out of order")
        if chunk.offset + len(chunk.content) > min(chunk.size, MAX_DOCUMENT):
            raise BodyRefused(f"a job's body is longer than announced, or than {MAX_DOCUMENT} bytes")
        held += chunk.content

    def take(self, opening: OpenRound) -> tuple[bytes, JobBody] | None:
        """The body a round is opened with, or None if it brings none. Raises BodyRefused."""
        what = f"the body of job {opening.job}"
        body = opening.body
        if body is None and opening.digest is not None:
            body = self._whole(what, opening.digest)
        if body is None:
            return None
        decoded = _decoded(what, body, decode_body)
        if decoded.job != opening.job:
            raise BodyRefused(f"the body of job {opening.job} is that of {decoded.job[:100]}")
        return body, decoded

    def take_start(self, order: StartNode) -> bytes:
        """The body of a pool's start. Raises BodyRefused."""
        what = "a pool's start"
        body = self._whole(what, order.digest) if order.body is None else order.body
        if hashlib.sha256(body).hexdigest() != order.digest:
            raise BodyRefused(f"{what} is not what was announced")
        _decoded(what, body, decode_start)
        return body

    def _whole(self, what: str, digest: str) -> bytes:
        body = bytes(self._coming.pop(digest, b""))
        if hashlib.sha256(body).hexdigest() != digest:
            raise BodyRefused(f"{what} is not what was announced")
        return body


def _decoded(what: str, body: bytes, decode: Callable[[bytes], JobBody]) -> JobBody:
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError
        raise BodyRefused(f"{what} does not fit: {error}") from None
