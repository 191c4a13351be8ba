"""Messages nobody should send: of any kind, filled with what exists in the world and with what breaks things."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect

from wire.messages import Message

INTS: Final = (0, 1, 2, -1, 3, 255, 1 << 16, 1 << 31, (1 << 63) - 1, -(1 << 63))
FLOATS: Final = (0.0, 1.5, -1.0, 1e300, -1e300, float("nan"), float("inf"), float("-inf"), 1_790_000_000.0)
TEXTS: Final = ("", "x", "..", "../../etc/passwd", "a" * 300, "\0", "é\u202e", "shared/x", "workitems", "*")
BYTES: Final = (b"", b"\0", b"x" * 100, b"\xff\xfe")

Vocabulary = Callable[[str], list[Any]]
"""By the name of a field: what of that kind there is in the world."""


class Chatter:
    """Makes messages. `probable` is how often a field holds something that exists."""

    def __init__(self, rng: random.Random, vocabulary: Vocabulary, probable: float = 0.7) -> None:
        self.rng = rng
        self.vocabulary = vocabulary
        self.probable = probable

    def of(self, kind: type[Message], **given: Any) -> Message:
        return self._struct(kind, given)  # type: ignore[no-any-return]

    def _struct(self, kind: type[Any], given: dict[str, Any]) -> Any:
        described = inspect.type_info(kind)
        assert isinstance(described, inspect.StructType)
        values = dict(given)
        for member in described.fields:
            if member.name not in values and (member.required or self.rng.random() < 0.6):
                values[member.name] = self._value(member.name, member.type)
        return kind(**values)

    def _value(self, name: str, kind: inspect.Type) -> Any:
        rng = self.rng
        if rng.random() < self.probable:
            known = [value for value in self.vocabulary(name) if _fits(value, kind)]
            if known:
                return rng.choice(known)
        match kind:
            case inspect.IntType():
                return rng.choice(INTS)
            case inspect.FloatType():
                return rng.choice(FLOATS)
            case inspect.StrType():
                return rng.choice(TEXTS)
            case inspect.BytesType():
                return rng.choice(BYTES)
            case inspect.BoolType():
                return rng.random() < 0.5
            case inspect.NoneType():
                return None
            case inspect.EnumType(cls=cls):
                return rng.choice(list(cls))
            case inspect.UnionType(types=types):
                return self._value(name, rng.choice(types))
            case inspect.ListType(item_type=item):
                return [self._value(name, item) for _ in range(rng.choice((0, 1, 1, 3)))]
            case inspect.TupleType(item_types=items):
                return tuple(self._value(name, item) for item in items)
            case inspect.DictType(key_type=key, value_type=value):
                return {self._value(name, key): self._value(name, value) for _ in range(rng.choice((0, 1, 2)))}
            case inspect.StructType(cls=cls):
                return self._struct(cls, {})
            case _:
                return rng.choice((None, 1, "x", [], {}, [[[]]]))


def _fits(value: Any, kind: inspect.Type) -> bool:
    match kind:
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.DictType():
            return isinstance(value, dict)
        case inspect.FloatType():
            return isinstance(value, float)
        case inspect.UnionType(types=types):
            return any(_fits(value, inner) for inner in types)
        case _:
            return False


def mangled(rng: random.Random, frame: bytes) -> bytes:
    """A frame with a byte changed, cut short, doubled, or wholly made up."""
    place = rng.randrange(len(frame))
    return rng.choice(
        (
            frame[:place] + bytes([rng.randrange(256)]) + frame[place + 1 :],
            frame[:place],
            frame + frame,
            rng.randbytes(rng.randint(1, 40)),
            b"\x00\x00\x10\x00" + msgspec.msgpack.encode([0, 0, {"kind": "Hello"}]),
        )
    )
