"""Seeded inputs for whatever reads the wire: valid messages with values at every edge, damage of all kinds, and bombs.

The same seed gives the same inputs. Nothing here knows what is expected of them.
"""

from __future__ import annotations

import math
import random
import struct
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgpack
import msgspec

from wire import codec, limits
from wire.codec import ProtocolError
from wire.messages import AnyMessage, Message

KINDS: tuple[type[Message], ...] = typing.get_args(AnyMessage)

INTEGERS = (0, 1, -1, 2, 7, 63, 64, 255, 1000, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.5, -1.0, 1e9, 1.8e9, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan)
TEXTS = (
    "", "a", "j", "j-1", "p", "n1", "t", "t[0]", "j-1/t", "j-1/t[2]", "nothing", "UserTerminate", "running",
    "completed", "..", "../../etc", "/", "\0", "a\nb", "\u2028", "é" * 40, "\U0001f4a3", "-rf", "$(id)", "'", '"',
    "%s%n", "x" * 65, "x" * 300,
)  # fmt: skip
BYTES = (b"", b"\0", b"x", b"\xff" * 9, bytes(300), b"0\x82\x01\x00", b"\x93\x00\x00\x80")


class Dice:
    """Chance for one seed."""

    def __init__(self, seed: str, names: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        self.texts = (*TEXTS, *names, *names)
        """`names` exist where the messages go."""

    def plain(self, depth: int = 0) -> Any:
        """Some value of no type in particular."""
        match self.random.randrange(9 if depth < 3 else 6):
            case 0:
                return None
            case 1:
                return self.random.choice(INTEGERS)
            case 2:
                return self.random.choice(FLOATS)
            case 3:
                return self.random.choice(self.texts)
            case 4:
                return self.random.choice(BYTES)
            case 5:
                return self.random.random() < 0.5
            case 6 | 7:
                return [self.plain(depth + 1) for _ in range(self.random.randrange(4))]
            case _:
                return {self.random.choice(self.texts): self.plain(depth + 1) for _ in range(self.random.randrange(4))}

    def value(self, kind: Any) -> Any:
        """A value of this type, often an extreme one."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind)
        if isinstance(kind, type) and hasattr(kind, "__members__"):
            return self.random.choice(list(kind))  # type: ignore[call-overload]
        if origin in (typing.Union, types.UnionType):
            return self.value(self.random.choice(arguments))
        if origin is list:
            return [self.value(arguments[0]) for _ in range(self.random.choice((0, 1, 1, 2, 3)))]
        if origin is tuple:
            return tuple(self.value(argument) for argument in arguments)
        if origin is dict:
            return {self.value(arguments[0]): self.value(arguments[1]) for _ in range(self.random.randrange(3))}
        chosen: Any = {
            int: INTEGERS,
            float: FLOATS,
            str: self.texts,
            bytes: BYTES,
            bool: (True, False),
            type(None): (None,),
        }.get(kind)
        return self.plain() if chosen is None else self.random.choice(chosen)

    def struct(self, kind: type[msgspec.Struct]) -> Any:
        hints = _hints(kind)
        return kind(**{name: self.value(hints[name]) for name in kind.__struct_fields__})

    def message(self, kinds: Sequence[type[Message]] = KINDS) -> Message:
        """Of the right shape; not always one that the codec takes."""
        return self.struct(self.random.choice(kinds))  # type: ignore[no-any-return]

    def sound(self, kinds: Sequence[type[Message]] = KINDS) -> Message:
        """As the other end reads it."""
        while True:
            try:
                return codec.decode_body(body(self.message(kinds), 1, 1))[2]
            except ProtocolError:
                continue


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def body(message: Message, epoch: int, sequence: int) -> bytes:
    """A frame's body that holds this message."""
    return codec.frame(epoch, sequence, codec.encode_message(message))[codec.HEADER.size :]


# ---- damage


def damaged(dice: Dice, content: bytes) -> bytes:
    """Bits flipped, bytes replaced, pieces cut out, doubled, put in, moved."""
    chance = dice.random
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(6):
            case 0 if place < len(made):
                made[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(made):
                made[place] = chance.randrange(256)
            case 2:
                del made[place : place + chance.choice((1, 2, 9, 10_000))]
            case 3:
                made[place:place] = made[place : place + chance.randrange(40)]
            case 4:
                made[place:place] = chance.randbytes(chance.randrange(1, 9))
            case _:
                made[place : place + 1] = bytes([chance.choice((0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xC9, 0xD4, 0xDD, 0xDF))])
    return bytes(made)


def distorted(dice: Dice, message: Message, epoch: int, sequence: int) -> bytes:
    """Well-formed msgpack of nearly that message: a field of another type, one missing, one too many, another kind."""
    plain = msgpack.unpackb(codec.encode_message(message), strict_map_key=False)
    chance = dice.random
    fields = list(plain)
    match chance.randrange(6):
        case 0:
            plain[chance.choice(fields)] = dice.plain()
        case 1:
            del plain[chance.choice(fields)]
        case 2:
            plain[dice.value(str)] = dice.plain()
        case 3:
            plain["kind"] = chance.choice((*(kind.__name__ for kind in KINDS), "Message", "", "Reply "))
        case 4:
            plain = dice.plain()
        case _:
            epoch, sequence = dice.value(int), dice.plain()
    return msgpack.packb([epoch, sequence, plain])  # type: ignore[no-any-return]


def bent(dice: Dice, plain: Any) -> Any:
    """Plain data with one value somewhere in it replaced, left out or doubled."""
    match plain:
        case dict() if plain and dice.random.random() < 0.9:
            name = dice.random.choice(list(plain))
            rest = {other: value for other, value in plain.items() if other != name}
            return rest if dice.random.random() < 0.05 else {**rest, name: bent(dice, plain[name])}
        case list() if plain and dice.random.random() < 0.9:
            place = dice.random.randrange(len(plain))
            doubled = [plain[place]] if dice.random.random() < 0.1 else []
            return [*plain[:place], bent(dice, plain[place]), *doubled, *plain[place + 1 :]]
    return dice.plain()


def nonsense(dice: Dice) -> bytes:
    """Bytes of no meaning, or of another protocol."""
    chance = dice.random
    match chance.randrange(4):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return chance.choice(
                (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01", b"{}", b"\x00" * 40)
            )
        case 2:
            return msgpack.packb(dice.plain())  # type: ignore[no-any-return]
        case _:
            return bytes([chance.randrange(256)]) * chance.randrange(1, 100)


def bodies(
    dice: Dice, count: int, epoch: int = 1, sequence: int = 1, kinds: Sequence[type[Message]] = KINDS
) -> Iterator[bytes]:
    """Frames' bodies: one in four is as it should be, the others are not."""
    for _ in range(count):
        message = dice.message(kinds)
        match dice.random.randrange(8):
            case 0 | 1:
                yield body(message, epoch, sequence)
            case 2 | 3 | 4:
                yield damaged(dice, body(message, epoch, sequence))
            case 5 | 6:
                yield distorted(dice, message, epoch, sequence)
            case _:
                yield nonsense(dice)


# ---- bombs


_MOST: Final = limits.MAX_FRAME


def _reply(content: bytes) -> bytes:
    head = b"\x93\x01\x01\x83\xa4kind\xa5Reply\xa7request\x01\xa4body"
    return (head + content)[:_MOST]


def _wide(count: int, each: bytes) -> bytes:
    return struct.pack(">BI", 0xDD, count) + each * count


BOMBS: Final[dict[str, Callable[[], bytes]]] = {
    "empty lists": lambda: _reply(_wide(_MOST - 100, b"\x90")),
    "empty maps": lambda: _reply(_wide(_MOST - 100, b"\x80")),
    "lists of lists": lambda: _reply(_wide(1000, _wide(900, b"\x90"))),
    "maps of one": lambda: _reply(_wide(100_000, b"\x81\xa1a\x80")),
    "numbers": lambda: _reply(_wide(limits.MAX_ITEMS, b"\x01")),
    "more numbers": lambda: _reply(_wide(_MOST - 100, b"\x01")),
    "nils": lambda: _reply(_wide(_MOST - 100, b"\xc0")),
    "empty texts": lambda: _reply(_wide(_MOST - 100, b"\xa0")),
    "big numbers": lambda: _reply(_wide(110_000, b"\xcf" + b"\xff" * 8)),
    "floats": lambda: _reply(_wide(110_000, b"\xcb\x7f\xf8\0\0\0\0\0\0")),
    "deep lists": lambda: _reply(b"\x91" * (_MOST - 100)),
    "deep maps": lambda: _reply(b"\x81\xa1a" * 300_000),
    "deep, and closed": lambda: _reply(b"\x91" * 1000 + b"\x01"),
    "a list said to be endless": lambda: _reply(b"\xdd\xff\xff\xff\xff"),
    "a map said to be endless": lambda: _reply(b"\xdf\xff\xff\xff\xff"),
    "a text said to be endless": lambda: _reply(b"\xdb\xff\xff\xff\xff"),
    "bytes said to be endless": lambda: _reply(b"\xc6\xff\xff\xff\xff"),
    "an extension said to be endless": lambda: _reply(b"\xc9\xff\xff\xff\xff\x01"),
    "a map of one key again and again": lambda: _reply(b"\xde\xff\xff" + b"\xa1a\x01" * 65_535),
    "a map of many keys": lambda: _reply(
        b"\xde\xff\xff" + b"".join(b"\xa5%05d\xc0" % number for number in range(65_535))
    ),
    "one long text": lambda: _reply(b"\xdb" + struct.pack(">I", _MOST - 100) + b"x" * (_MOST - 100)),
    "a text of four bytes each": lambda: _reply(
        b"\xdb" + struct.pack(">I", 1_048_000) + "\U0001f4a3".encode() * 262_000
    ),
    "one wide character in a long text": lambda: _reply(
        b"\xdb" + struct.pack(">I", 1_048_004) + b"x" * 1_048_000 + "\U0001f4a3".encode()
    ),
    "many short texts": lambda: _reply(_wide(limits.MAX_ITEMS, b"\xa6abcdef")),
    "as many maps as are allowed": lambda: _reply(_wide(limits.MAX_CONTAINERS - 4, b"\x82\xa1a\x01\xa1b\x02")),
}
"""Bodies that fit a frame and ask for far more than they are: memory, depth, time."""
