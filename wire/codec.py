"""Bytes to typed messages and back, with limits on everything: a frame's body is `[epoch, sequence, message]`.

msgpack takes the bytes apart under limits of length and number, msgspec makes the typed message of it. Whatever does
not fit is a ProtocolError with a sentence; nothing else ever comes out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, Final, TypeVar, cast, get_args

import msgpack
import msgspec

from wire import limits
from wire.messages import AnyMessage, Message

T = TypeVar("T")

HEADER: Final = struct.Struct(">I")
_ENCODER: Final = msgspec.msgpack.Encoder()
_KINDS: Final[dict[str, type[Message]]] = {kind.__name__: kind for kind in get_args(AnyMessage)}
_TRIPLE: Final = b"\x93"  # a msgpack array of three


class ProtocolError(Exception):
    """What came in breaks the protocol. The text is a sentence for the peer and the log."""


class FrameTooLarge(ValueError):
    """A message of our own does not fit a frame: it belongs into chunks."""


# ---- out


def encode_message(message: Message) -> bytes:
    """The message alone; `frame` puts it into its envelope when its turn to be sent has come."""
    return _ENCODER.encode(message)


def frame(epoch: int, sequence: int, payload: bytes, limit: int = limits.MAX_FRAME) -> bytes:
    """An encoded message in its envelope, with the length before it. Raises FrameTooLarge."""
    body = b"".join((_TRIPLE, _ENCODER.encode(epoch), _ENCODER.encode(sequence), payload))
    if len(body) > limit:
        raise FrameTooLarge(f"a frame of {len(body)} bytes is over the limit of {limit}")
    return HEADER.pack(len(body)) + body


def encode_value(value: Any) -> bytes:
    """Any plain or struct value, for records and blobs."""
    return _ENCODER.encode(value)


# ---- in


def body_length(header: bytes, limit: int) -> int:
    """The length a frame's first four bytes announce. Raises ProtocolError over the limit."""
    length: int = HEADER.unpack(header)[0]
    if length > limit:
        raise ProtocolError(f"a frame of {length} bytes is over the limit of {limit}")
    if length == 0:
        raise ProtocolError("an empty frame")
    return length


def decode_body(body: bytes) -> tuple[int, int, AnyMessage]:
    """`(epoch, sequence, message)` of a frame's body. Raises ProtocolError."""
    triple = decode_plain(body, limits.MAX_FRAME, limits.MAX_ITEMS, limits.MAX_CONTAINERS)
    if type(triple) is not list or len(triple) != 3:
        raise ProtocolError("a frame is [epoch, sequence, message]; this is something else")
    epoch, sequence, plain = triple
    if type(epoch) is not int or type(sequence) is not int or epoch < 0 or sequence < 0:
        raise ProtocolError("epoch and sequence are whole numbers from 0; these are not")
    return epoch, sequence, _typed(plain)


def _typed(plain: Any) -> Any:
    name = plain.get("kind") if type(plain) is dict else None
    kind = _KINDS.get(name) if type(name) is str else None
    if kind is None:
        raise ProtocolError(f"a message of unknown kind {str(name)[:40]!r}")
    try:
        return msgspec.convert(plain, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise ProtocolError(f"a malformed {name}: {error}") from None


def decode_plain(
    body: bytes,
    max_bytes: int = limits.MAX_DOCUMENT,
    max_items: int = limits.MAX_DOCUMENT_ITEMS,
    max_containers: int = limits.MAX_DOCUMENT_CONTAINERS,
) -> Any:
    """Untyped data from outside, for instance an uploaded document. Raises ProtocolError."""
    if len(body) > max_bytes:
        raise ProtocolError(f"{len(body)} bytes are over the limit of {max_bytes}")
    count = _counter(max_containers)
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            list_hook=count,
            object_hook=count,
            ext_hook=_refuse_extension,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_array_len=max_items,
            max_map_len=max_items,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"no valid msgpack within the limits: {str(error)[:200] or type(error).__name__}") from None


def _counter(most: int) -> Callable[[Any], Any]:
    left = most

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {most} arrays and maps")
        return container

    return count


def _refuse_extension(code: int, content: bytes) -> Any:
    raise ValueError(f"extension type {code}")


@lru_cache(maxsize=256)
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode_value(body: bytes, kind: type[T]) -> T:
    """A value that `encode_value` wrote here before (records). Raises ProtocolError when it does not fit `kind`."""
    try:
        value: T = _decoder(cast(Hashable, kind)).decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"no {getattr(kind, '__name__', kind)}: {error}") from None
    return value


def convert_value(plain: Any, kind: type[T]) -> T:
    """Plain data (of `decode_plain`) as `kind`. Raises ProtocolError when it does not fit."""
    try:
        return msgspec.convert(plain, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise ProtocolError(f"no {getattr(kind, '__name__', kind)}: {error}") from None
