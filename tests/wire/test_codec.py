"""The codec: what goes out comes back, and nothing that comes in does anything but a sentence."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import types
import typing
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import codec, limits
from wire.codec import FrameTooLarge, ProtocolError
from wire.messages import AnyMessage, Heartbeat, Message, Outcome, Reply, Report, Submit, TaskEnd

KINDS = typing.get_args(AnyMessage)


def sample(kind: Any) -> Any:
    """Some value of a field's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{field: sample(hints[field]) for field in kind.__struct_fields__})
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return next(iter(kind))
    if origin in (typing.Union, types.UnionType):
        return sample(arguments[0])
    if origin is list:
        return [sample(arguments[0])]
    if origin is tuple:
        return tuple(sample(argument) for argument in arguments)
    if origin is dict:
        return {sample(arguments[0]): sample(arguments[1])}
    return {int: 7, float: 1.5, str: "text", bytes: b"\x00\xff", bool: True, Any: {"any": [1, None]}}[kind]


def body_of(message: Message, epoch: int = 1, sequence: int = 1) -> bytes:
    return codec.frame(epoch, sequence, codec.encode_message(message))[codec.HEADER.size :]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind):
    message = sample(kind)
    assert codec.decode_body(body_of(message, 5, 9)) == (5, 9, message)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_unknown_field_is_refused_in_every_message(kind):
    plain = msgspec.to_builtins(sample(kind), builtin_types=(bytes,)) | {"surprise": 1}
    with pytest.raises(ProtocolError, match="surprise"):
        codec.decode_body(msgpack.packb([1, 1, plain]))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_protocol_error(content):
    try:
        codec.decode_body(content)
    except ProtocolError as error:
        assert str(error)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(["request", "job", "number", "tasks", "slots", "body"]), plain_values),
)
def test_fields_of_any_shape_are_a_message_or_a_protocol_error(kind, fields):
    try:
        codec.decode_body(msgpack.packb([1, 1, {"kind": kind.__name__, **fields}]))
    except ProtocolError as error:
        assert kind.__name__ in str(error)


def mutations(content: bytes, seed: str, count: int) -> typing.Iterator[bytes]:
    """Seeded damage: bits flipped, bytes replaced, cut off, doubled, put in."""
    for number in range(count):
        dice = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        place = int.from_bytes(dice[:4], "big") % len(content)
        match dice[4] % 5:
            case 0:
                yield content[:place] + bytes([content[place] ^ (1 << (dice[5] % 8))]) + content[place + 1 :]
            case 1:
                yield content[:place] + bytes([dice[5]]) + content[place + 1 :]
            case 2:
                yield content[:place]
            case 3:
                yield content[:place] + content[place:] * 2
            case _:
                yield content[:place] + dice[5 : 5 + dice[6] % 8] + content[place:]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_damaged_frame_is_a_message_or_a_protocol_error(kind):
    for damaged in mutations(body_of(sample(kind)), kind.__name__, 300):
        try:
            epoch, sequence, message = codec.decode_body(damaged)
        except ProtocolError:
            continue
        assert epoch >= 0
        assert sequence >= 0
        assert isinstance(message, Message)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "msgpack"),
        (b"\xc1", "msgpack"),
        (msgpack.packb([1, 1, {"kind": "Heartbeat", "beat": 1}]) + b"\x00", "extra data"),
        (msgpack.packb({"kind": "Heartbeat", "beat": 1}), "epoch, sequence, message"),
        (msgpack.packb([1, 1]), "epoch, sequence, message"),
        (msgpack.packb([True, 0, {}]), "whole numbers"),
        (msgpack.packb([-1, 0, {}]), "whole numbers"),
        (msgpack.packb([1, 1.0, {}]), "whole numbers"),
        (msgpack.packb([1, 1, {"kind": "Nonsense"}]), "unknown kind 'Nonsense'"),
        (msgpack.packb([1, 1, {"kind": ["Heartbeat"]}]), "unknown kind"),
        (msgpack.packb([1, 1, ["Heartbeat", 1]]), "unknown kind"),
        (msgpack.packb([1, 1, {"kind": "Message"}]), "unknown kind"),
        (msgpack.packb([1, 1, {"kind": "Heartbeat", "beat": "1"}]), "Heartbeat"),
        (msgpack.packb([1, 1, {"kind": "Heartbeat"}]), "beat"),
        (msgpack.packb([1, 1, {"kind": "Heartbeat", "beat": msgpack.ExtType(5, b"")}]), "extension|ext"),
        (msgpack.packb([1, 1, {"kind": "Reply", "request": 1, "body": msgpack.Timestamp(1)}]), "ext"),
        (b"\x93\x01\x01\x81\x01\x01", "key"),
        (b"\x91" * 100_000, "msgpack"),
        (b"\x81\xa1a" * 100_000, "msgpack"),
        (b"\xdd\xff\xff\xff\xff", "msgpack"),
        (b"\xdf\xff\xff\xff\xff", "msgpack"),
        (b"\xc6\xff\xff\xff\xff", "msgpack"),
        (b"\x93\x01\x01\xa4\xff\xff\xff\xff", "msgpack"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(body, reason):
    with pytest.raises(ProtocolError, match=reason):
        codec.decode_body(body)


@pytest.mark.parametrize(
    "bomb",
    [
        msgpack.packb([1, 1, {"kind": "Reply", "request": 1, "body": [[[]] * 10_000] * 100}])[: limits.MAX_FRAME],
        msgpack.packb([1, 1, {"kind": "Reply", "request": 1, "body": [[{}] * 10_000] * 100}])[: limits.MAX_FRAME],
        msgpack.packb([[]] * (limits.MAX_FRAME - 5)),
    ],
    ids=["nested lists", "nested maps", "a flat million"],
)
def test_a_bomb_of_small_containers_is_refused_before_it_grows(bomb):
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            codec.decode_body(bomb)
        assert tracemalloc.get_traced_memory()[1] < 24 * limits.MAX_FRAME
    finally:
        tracemalloc.stop()


def test_a_document_within_its_own_limits_passes_where_a_frame_would_not():
    document = {"values": [[number] for number in range(limits.MAX_CONTAINERS + 1)]}
    assert codec.decode_plain(msgpack.packb(document)) == document
    with pytest.raises(ProtocolError, match="arrays and maps"):
        codec.decode_body(
            msgpack.packb([1, 1, {"kind": "Submit", "request": 1, "submission": "s", "document": document}])
        )


def test_text_is_never_taken_for_bytes():
    with pytest.raises(ProtocolError, match="bytes"):
        codec.decode_body(
            msgpack.packb([1, 1, {"kind": "FileContents", "request": 1, "content": "aGk=", "size": 2, "end": True}])
        )


@pytest.mark.parametrize("length", [limits.MAX_FRAME + 1, 2**32 - 1])
def test_a_length_over_the_limit_is_refused_by_its_four_bytes(length):
    with pytest.raises(ProtocolError, match="over the limit"):
        codec.body_length(struct.pack(">I", length), limits.MAX_FRAME)


def test_an_empty_frame_is_refused():
    with pytest.raises(ProtocolError, match="empty"):
        codec.body_length(bytes(4), limits.MAX_FRAME)


def test_a_message_of_our_own_that_fits_no_frame_is_our_mistake():
    with pytest.raises(FrameTooLarge):
        codec.frame(1, 1, codec.encode_message(Reply(1, bytes(limits.MAX_FRAME))))


def test_a_value_comes_back_typed_and_anything_else_is_refused():
    end = TaskEnd(1, 2, Outcome.EXITED, 0, None, 1.0, 2.0, 0.5, 4096)
    assert codec.decode_value(codec.encode_value(end), TaskEnd) == end
    assert codec.convert_value(codec.decode_plain(codec.encode_value(end)), TaskEnd) == end
    for wrong in (b"\xc1", codec.encode_value([1, 2]), b""):
        with pytest.raises(ProtocolError, match="TaskEnd"):
            codec.decode_value(wrong, TaskEnd)
    with pytest.raises(ProtocolError, match="TaskEnd"):
        codec.convert_value({"grant": 1}, TaskEnd)


def test_a_report_of_a_thousand_ends_fits_a_frame():
    ends = [TaskEnd(2**40, n, Outcome.EXITED, 0, None, 1.7e9, 1.7e9, 0.01, 2**24) for n in range(1000)]
    assert codec.decode_body(body_of(Report(1, ends, [])))[2] == Report(1, ends, [])


def test_the_same_message_is_always_the_same_bytes():
    assert codec.encode_message(Heartbeat(1)) == codec.encode_message(Heartbeat(1))
    submission = Submit(request=1, submission="s", document={"b": 1, "a": [1.5, "x", None]})
    assert codec.decode_body(body_of(submission))[2] == submission
